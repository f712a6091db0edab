"""Checkpoints: every path form, every way to be broken, and both directions."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import tarfile

import numpy as np
import pytest
import tensorflow as tf
from conftest import load_decoder, load_encoder, recipe_tensors, save_tf1

from magenta_nsynth.config import SpectralConfig, WaveNetConfig, read_fields
from magenta_nsynth.errors import CheckpointError, InputError
from magenta_nsynth.models.wavenet import WaveNetAutoencoder, WaveNetEncoder
from magenta_nsynth.weights import engine, paths, tables
from magenta_nsynth.weights.checkpoint import Checkpoint
from magenta_nsynth.weights.summary import summarize


@pytest.fixture
def copy(tiny_checkpoint, tmp_path):
    """A copy of the tiny checkpoint that a test may damage: its prefix."""
    for ending in (".index", ".data-00000-of-00001"):
        shutil.copy(tiny_checkpoint + ending, tmp_path / f"model.ckpt-5{ending}")
    return str(tmp_path / "model.ckpt-5")


@pytest.fixture(scope="module")
def tensors(tiny_checkpoint):
    """All 1,495 tensors, read by TensorFlow itself."""
    reader = tf.train.load_checkpoint(tiny_checkpoint)
    return {n: reader.get_tensor(n) for n in sorted(reader.get_variable_to_shape_map())}


def table_of(path):
    lines = pathlib.Path(path).read_text().splitlines()
    rows = (line.split("\t") for line in lines)
    return {
        name: tuple(int(size) for size in shape.split(",") if size)
        for name, _, shape in rows
    }


def test_tables_are_the_originals(data):
    rows = tables.table(WaveNetConfig())
    full = table_of(data / "wavenet_full" / "variables.tsv")
    assert {row.name: row.shape for row in rows} == full
    baseline = table_of(data / "baseline_full" / "variables.tsv")
    assert {row.name: row.shape for row in tables.table(SpectralConfig())} == baseline
    assert len(baseline) == 87


def test_loading_assigns_every_tensor_where_it_belongs(copy, tensors):
    """With every number of the file another, a swap or a transpose shows."""
    count = 0
    distinct = {}
    for name, value in tensors.items():
        if value.dtype == np.float32:
            distinct[name] = np.arange(count, count + value.size, dtype=np.float32)
            distinct[name] = distinct[name].reshape(value.shape)
            count += value.size
    save_tf1(copy, distinct)
    model = engine.load_autoencoder(copy)
    for variable in model.variables:
        layer, kind = variable.path.split("/")[-2:]
        expected = distinct[f"{layer}/{ {'kernel': 'W', 'bias': 'biases'}[kind] }"]
        np.testing.assert_array_equal(
            variable.numpy(), expected[0] if kind == "kernel" else expected
        )


def test_a_tf1_saver_restores_what_we_save(tmp_path, data):
    config = WaveNetConfig(
        width=6, skip_width=5, num_layers=3, ae_width=7, ae_num_layers=2
    )
    model = WaveNetAutoencoder(config)
    engine.save_weights(model, tmp_path / "model.ckpt-7", step=7)
    expected = {
        "ae_dilatedconv_2/W": model.encoder.ae_dilatedconv[1].kernel.numpy()[None],
        "dilatedconv_3/W": model.decoder.dilatedconv[2].kernel.numpy()[None],
        "res_3/biases": model.decoder.res[2].bias.numpy(),
        "global_step": np.int32(7),
    }
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {
            name: tf.compat.v1.get_variable(
                name, shape=value.shape, dtype=value.dtype, use_resource=False
            )
            for name, value in expected.items()
        }
        saver = tf.compat.v1.train.Saver()
        saver.restore(session, tf.train.latest_checkpoint(str(tmp_path)))
        for name, value in session.run(variables).items():
            np.testing.assert_array_equal(value, expected[name])
    again = engine.load_autoencoder(tmp_path)
    for ours, saved in zip(again.variables, model.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), saved.numpy())
    assert again.config == config
    with pytest.raises(CheckpointError, match="already"):
        engine.save_weights(model, tmp_path / "model.ckpt-7")
    with pytest.raises(CheckpointError, match="only a part"):
        engine.save_weights(model.encoder, tmp_path / "other")


@pytest.mark.parametrize(
    "form", ["", ".index", ".data-00000-of-00001", ".meta", "folder", "state"]
)
def test_path_forms(copy, form):
    folder = os.path.dirname(copy)
    pathlib.Path(copy + ".meta").write_bytes(b"")
    if form == "state":
        pathlib.Path(folder, "checkpoint").write_text(
            'model_checkpoint_path: "/home/somebody/else/model.ckpt-5"\n'
        )
    given = {"folder": folder, "state": os.path.join(folder, "checkpoint")}
    assert paths.resolve_checkpoint(given.get(form, copy + form)) == copy


def test_home_folder_and_relative_paths(copy, monkeypatch):
    monkeypatch.setenv("HOME", os.path.dirname(copy))
    assert paths.resolve_checkpoint("~/model.ckpt-5") == copy
    monkeypatch.chdir(os.path.dirname(copy))
    assert Checkpoint("model.ckpt-5").step == 5
    assert Checkpoint(".").step == 5


def test_text_in_place_of_a_tensor(tmp_path):
    save_tf1(str(tmp_path / "model.ckpt-1"), {"global_step": np.array(b"x" * 9)})
    with pytest.raises(CheckpointError, match="global_step holds text"):
        Checkpoint(tmp_path).step  # noqa: B018


def test_a_variable_in_a_folders_name_is_a_part_of_it(copy, monkeypatch):
    monkeypatch.setenv("PLACE", "elsewhere")
    folder = os.path.join(os.path.dirname(copy), "$PLACE")
    os.mkdir(folder)
    for ending in (".index", ".data-00000-of-00001"):
        os.rename(copy + ending, f"{folder}/model.ckpt-5{ending}")
    assert Checkpoint(f"{folder}/model.ckpt-5").step == Checkpoint(folder).step == 5


def test_folder_of_three(copy, caplog):
    folder = os.path.dirname(copy)
    for step in (40, 300):
        for ending in (".index", ".data-00000-of-00001"):
            shutil.copy(
                copy + ending, os.path.join(folder, f"model.ckpt-{step}{ending}")
            )

    def chosen():
        return os.path.basename(paths.resolve_checkpoint(folder))

    assert chosen() == "model.ckpt-300"  # by number: not by name, not by date
    state = pathlib.Path(folder, "checkpoint")
    state.write_text('model_checkpoint_path: "C:\\\\stale\\\\model.ckpt-40"\n')
    assert chosen() == "model.ckpt-40"
    state.write_text(
        'model_checkpoint_path: "/stale/model.ckpt-5"\n'
        'all_model_checkpoint_paths: "/stale/model.ckpt-40"\n'
    )
    assert chosen() == "model.ckpt-5"
    os.unlink(copy + ".data-00000-of-00001")
    assert chosen() == "model.ckpt-300"  # the named one is not whole
    state.write_bytes(b"\xff\xfe garbage")
    assert chosen() == "model.ckpt-300"


def test_what_is_no_checkpoint_is_named(copy, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    text = folder / "notes.txt"
    text.write_text("hello")
    cases = {
        "": "No checkpoint given",
        str(folder): "no checkpoint in this folder",
        str(folder / "model.ckpt-1"): "no such checkpoint",
        str(text): "not a TF1 checkpoint",
        copy[:-2]: f"Did you mean {re.escape(copy)}",
    }
    for given, message in cases.items():
        with pytest.raises(CheckpointError, match=message):
            Checkpoint(given)
    os.unlink(copy + ".index")
    with pytest.raises(CheckpointError, match=r"\.index is missing"):
        Checkpoint(copy)
    with pytest.raises(CheckpointError, match=r"\.index is missing"):
        Checkpoint(copy + ".data-00000-of-00001")


def test_missing_data_file(copy):
    os.unlink(copy + ".data-00000-of-00001")
    for given in (copy, copy + ".index"):
        with pytest.raises(CheckpointError, match=r"data-00000-of-00001 is missing"):
            Checkpoint(given)
    with pytest.raises(CheckpointError, match=r"lacks its \.data file"):
        Checkpoint(os.path.dirname(copy))


@pytest.mark.parametrize("name", ["wavenet-ckpt.tar", "a b.tar.gz"])
def test_an_archive_is_answered_with_how_to_unpack_it(copy, tmp_path, name):
    folder = tmp_path / "download"
    folder.mkdir()
    with tarfile.open(folder / name, "w:gz" if name.endswith("gz") else "w") as archive:
        for ending in (".index", ".data-00000-of-00001"):
            archive.add(copy + ending, "wavenet-ckpt/model.ckpt-5" + ending)
    for given in (folder / name, folder):
        with pytest.raises(CheckpointError, match="unpack") as raised:
            Checkpoint(given)
    command = re.search("run `(.*)` and pass", str(raised.value))[1]
    subprocess.run(command, shell=True, check=True)
    path = re.search("--checkpoint_path='(.*)'", str(raised.value))[1]
    assert Checkpoint(path).step == 5
    (folder / "broken.tar").write_bytes((folder / name).read_bytes()[:1000])
    with pytest.raises(CheckpointError):
        Checkpoint(folder / "broken.tar")


def test_truncated_data_file_is_named_before_anything_is_read(copy):
    data = copy + ".data-00000-of-00001"
    size = os.path.getsize(data)
    os.truncate(data, size - 1)
    with pytest.raises(
        CheckpointError, match=rf"{re.escape(data)}: truncated"
    ) as error:
        Checkpoint(copy)
    assert f"{size - 1:,} of {size:,} bytes" in str(error.value)


def test_flipped_byte_is_named(copy, tensors):
    names = sorted(tensors)
    position = 0  # the file holds the tensors sorted by name, with no gaps
    for name in names:
        if name == "ae_res_3/W":
            break
        position += tensors[name].nbytes
    data = copy + ".data-00000-of-00001"
    with open(data, "r+b") as file:
        file.seek(position + 5)
        byte = file.read(1)
        file.seek(position + 5)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(CheckpointError, match=r"ae_res_3/W is damaged"):
        load_encoder(copy)
    load_decoder(copy)  # which has no part in it


@pytest.mark.parametrize("content", [b"", b"garbage" * 100])
def test_damaged_index(copy, content):
    pathlib.Path(copy + ".index").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"\.index"):
        Checkpoint(copy)


def test_flipped_byte_in_the_index(copy):
    index = pathlib.Path(copy + ".index")
    content = bytearray(index.read_bytes())
    content[len(content) // 2] ^= 0xFF
    index.write_bytes(content)
    with pytest.raises(CheckpointError):
        engine.load_autoencoder(copy)


def test_permission_denied(copy, monkeypatch):
    import builtins

    real = builtins.open

    def refuse(file, *args, **kwargs):
        if str(file).endswith(".data-00000-of-00001"):
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(CheckpointError, match="data-00000-of-00001: Permission denied"):
        Checkpoint(copy)


def test_missing_extra_and_misshapen_tensors_in_one_error(copy, tensors):
    changed = dict(tensors)
    del changed["skip_7/W"]
    changed["skip_8/W"] = np.zeros([1, 1, 16, 9], np.float32)
    changed["surprise/W"] = np.zeros([2], np.float32)
    save_tf1(copy, changed)
    for load in (load_encoder, engine.load_autoencoder):
        with pytest.raises(CheckpointError) as raised:
            load(copy)
        message = str(raised.value)
        assert "missing: skip_7/W;" in message
        assert "not the model's: surprise/W;" in message
        assert "skip_8/W [1, 1, 16, 9] where the config needs [1, 1, 16, 8]" in message
        assert "\n" not in message


def test_a_slot_of_an_unknown_tensor_is_not_ignored(copy, tensors):
    save_tf1(copy, tensors | {"surprise/Adam": np.zeros([2], np.float32)})
    with pytest.raises(CheckpointError, match="surprise/Adam"):
        load_encoder(copy)


def test_averages_that_are_not_there(copy, tensors):
    raw = {
        n: v for n, v in tensors.items() if not n.endswith("ExponentialMovingAverage")
    }
    save_tf1(copy, raw)
    load_encoder(copy)
    with pytest.raises(CheckpointError, match="no averaged weights"):
        load_encoder(copy, use_ema=True)
    name = "ae_res_1/W/ExponentialMovingAverage"
    save_tf1(copy, {n: v for n, v in tensors.items() if n != name})
    with pytest.raises(CheckpointError, match=f"missing: {name}"):
        load_encoder(copy, use_ema=True)


def test_the_other_model_is_recognised(data, tmp_path):
    shapes = table_of(data / "baseline_full" / "variables.tsv")
    small = {n: np.zeros([min(s, 2) for s in shape]) for n, shape in shapes.items()}
    save_tf1(str(tmp_path / "model.ckpt-351648"), small)
    for load in (load_encoder, engine.load_autoencoder):
        with pytest.raises(CheckpointError, match="spectral baseline"):
            load(tmp_path, model="wavenet")
    assert "spectral baseline" in summarize(tmp_path)
    save_tf1(str(tmp_path / "model.ckpt-351648"), {"weights": np.zeros(3)})
    with pytest.raises(CheckpointError, match="neither of NSynth's"):
        load_encoder(tmp_path)


def test_config_from_shapes_and_config_file(copy, golden_tiny):
    config = engine.read_config(Checkpoint(copy))
    expected = WaveNetConfig(width=16, skip_width=8, ae_width=8)
    assert config == expected
    other = expected.to_dict() | {"ae_hop_length": 256, "num_stages": 5}
    file = pathlib.Path(copy).parent / "config.json"
    file.write_text(json.dumps({"model": "wavenet", "config": other}))
    assert engine.read_config(Checkpoint(copy)).ae_hop_length == 256
    assert engine.read_config(Checkpoint(copy)).num_stages == 5
    flagged = engine.read_config(Checkpoint(copy), hop_length=128, num_stages=4)
    assert (flagged.ae_hop_length, flagged.num_stages) == (128, 4)
    assert flagged.ae_num_stages == 4
    other["width"] = 17
    file.write_text(json.dumps({"model": "wavenet", "config": other}))
    with pytest.raises(
        CheckpointError, match="width is 17 there and 16 in the tensors"
    ):
        engine.read_config(Checkpoint(copy))


@pytest.mark.parametrize(
    "content",
    [
        "{", "[]", "7", "[" * 100_000, '{"config": ' * 100_000, '{"model": "wavenet"}',
        '{"config": []}', '{"model": 7, "config": {}}', '{"model": [], "config": {}}',
        '{"config": {"ae_hop_length": "512"}}', '{"config": {"ae_hop_length": [512]}}',
        '{"config": {"ae_hop_length": -1}}', '{"config": {"ae_hop_length": 1e400}}',
        '{"config": {"ae_hop_length": 9999999999}}', '{"config": {"num_stages": true}}',
        '{"config": {"rescale_inputs": 1}}', '{"config": {"ae_num_stages": 0}}',
    ],
)  # fmt: skip
def test_a_config_file_of_the_wrong_type(copy, content):
    file = pathlib.Path(copy).parent / "config.json"
    file.write_text(content)
    with pytest.raises(CheckpointError) as error:
        engine.read_config(Checkpoint(copy))
    assert str(error.value).startswith(f"{file}: ") and "\n" not in str(error.value)
    with pytest.raises(InputError) as error:
        read_fields(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_another_hop_gives_other_frames(copy, golden_tiny):
    encoder = load_encoder(copy, hop_length=1024)
    halves = golden_tiny["raw_encoding"].reshape(2, 6, 2, 16).mean(axis=2)
    encoding = encoder(golden_tiny["audio"]).numpy()
    assert np.abs(encoding - halves).max() < 2e-5 * np.abs(halves).max()


@pytest.mark.parametrize("choice", ["raw", "averaged", "both"])
def test_strip(copy, tensors, tmp_path, choice):
    prefix = engine.strip_checkpoint(
        copy, tmp_path / "out", choice == "averaged", keep_averages=choice == "both"
    )
    assert prefix == str(tmp_path / "out" / "model.ckpt-5")
    reader = tf.train.load_checkpoint(prefix)
    stripped = {n: reader.get_tensor(n) for n in reader.get_variable_to_shape_map()}
    assert len(stripped) == 1 + (748 if choice == "both" else 374)
    assert stripped["global_step"] == 5 and stripped["global_step"].dtype == np.int32
    for name, value in stripped.items():
        source = name
        if choice == "averaged" and name != "global_step":
            source += "/ExponentialMovingAverage"
        np.testing.assert_array_equal(value, tensors[source])
    assert tf.train.latest_checkpoint(str(tmp_path / "out")) == prefix
    engine.load_autoencoder(prefix)
    with pytest.raises(CheckpointError, match="already"):
        engine.strip_checkpoint(copy, tmp_path / "out")


def test_two_models_do_not_share_a_folder(copy, tmp_path):
    """The config.json of one would make the other unreadable."""
    engine.strip_checkpoint(copy, tmp_path / "out")
    os.rename(tmp_path / "out" / "model.ckpt-5.index", tmp_path / "out" / "a.index")
    with pytest.raises(CheckpointError, match="another model"):
        engine.strip_checkpoint(copy, tmp_path / "out", hop_length=256)
    engine.strip_checkpoint(copy, tmp_path / "out")  # the same model may


def test_strip_refuses_two_choices(copy, tmp_path):
    with pytest.raises(InputError, match="not the two together"):
        engine.strip_checkpoint(copy, tmp_path / "out", True, keep_averages=True)


def test_nothing_is_left_of_a_checkpoint_that_could_not_be_written(copy, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "model.ckpt-5.data-00000-of-00001").mkdir()  # in the way
    with pytest.raises(OSError):
        engine.strip_checkpoint(copy, folder)
    assert sorted(os.listdir(folder)) == ["model.ckpt-5.data-00000-of-00001"]


def test_summary(tiny_checkpoint):
    text = summarize(tiny_checkpoint)
    for expected in (
        "WaveNet autoencoder",
        "30 layers of width 16, skip width 8",
        "step:        5",
        "raw weights (374), averaged weights (374), optimiser state (744)",
        "1,495 tensors",
        "yes, names and shapes",
    ):
        assert expected in text
    assert "h512_bo16" not in text


def test_verify_wants_the_whole_model(copy, tensors, full_checkpoint):
    engine.verify(full_checkpoint, "wavenet")
    with pytest.raises(CheckpointError, match="pass one of the spectral"):
        engine.verify(full_checkpoint, "baseline")
    save_tf1(copy, {n: v for n, v in tensors.items() if n != "logits/W"})
    with pytest.raises(CheckpointError, match="logits/W"):
        engine.verify(copy, "wavenet")


def test_a_model_changed_behind_the_table_is_noticed():
    encoder = WaveNetEncoder(WaveNetConfig(width=16, skip_width=8, ae_width=8))
    encoder.stranger = encoder._conv("ae_stranger", 8, 8)
    with pytest.raises(CheckpointError, match="ae_stranger"):
        engine.plan(encoder, tables.table(encoder.config))


def bytes_read(load):
    """How many bytes this process reads from files meanwhile."""

    def read():
        return int(pathlib.Path("/proc/self/io").read_text().split()[1])

    before = read()
    load()
    return read() - before


@pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="needs Linux' /proc")
def test_the_encoder_alone_is_read(full_checkpoint):
    """Of a raw-only file: 247 MB, of which the encoder is 8."""
    read = bytes_read(lambda: load_encoder(full_checkpoint))
    assert 7_900_000 < read < 25_000_000


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="needs Linux' /proc")
@pytest.mark.parametrize(
    ("load", "most"),
    [
        (load_encoder, 40e6),
        (engine.load_autoencoder, 360e6),
    ],
)
def test_little_is_read_of_a_training_checkpoint(data, tmp_path, load, most):
    """All 1,495 tensors, 987 MB.

    TensorFlow's reader takes 256 KB for each smaller tensor, so 247 MB cost 349.
    """
    raw = recipe_tensors(data / "wavenet_full" / "variables.tsv", 0.8)
    everything = dict(raw)
    for name, value in raw.items():
        everything[name + "/ExponentialMovingAverage"] = value
        if not name.startswith("res_30/"):
            everything[name + "/Adam"] = everything[name + "/Adam_1"] = value
    for power in ("beta1_power", "beta2_power"):
        everything[power] = np.float32(0)
    everything["global_step"] = np.int32(200_000)
    assert len(everything) == 1495
    prefix = str(tmp_path / "model.ckpt-200000")
    save_tf1(prefix, everything)
    assert os.path.getsize(prefix + ".data-00000-of-00001") == 986_763_532
    assert bytes_read(lambda: load(prefix)) < most


def test_a_checkpoint_one_folder_down_is_named(tmp_path, tiny_checkpoint):
    with pytest.raises(CheckpointError, match="nsynth_checkpoint download"):
        paths.resolve_checkpoint(tmp_path)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "empty").mkdir()
    below = tmp_path / "wavenet-ckpt"
    shutil.copytree(pathlib.Path(tiny_checkpoint).parent, below)
    with pytest.raises(CheckpointError, match=f"--checkpoint_path={below}"):
        paths.resolve_checkpoint(tmp_path)


def test_weights_that_are_no_numbers_are_not_loaded(tiny_checkpoint, tmp_path):
    checkpoint = Checkpoint(tiny_checkpoint)
    tensors = dict(checkpoint.read(checkpoint.shapes))
    tensors["ae_bottleneck/biases"][3] = np.nan
    prefix = str(tmp_path / "model.ckpt-6")
    save_tf1(prefix, tensors)
    with pytest.raises(CheckpointError, match="ae_bottleneck/biases holds NaN"):
        load_encoder(prefix)
