"""What NSynth's Keras models share: a config, and how they are saved."""

from typing import Any, ClassVar

import keras

from magenta_nsynth.config import Config

__all__ = ["ConfiguredModel"]

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "magenta_nsynth needs Keras on TensorFlow, but KERAS_BACKEND is "
        f"{keras.backend.backend()!r}: unset it, or set it to 'tensorflow'."
    )


class ConfiguredModel(keras.Model):
    """A Keras model whose config determines every shape.

    A subclass defines `config_class`, `default_name` and `_build_layers`.

    Attributes:
      config: of the class `config_class`.
    """

    config_class: ClassVar[type[Config]]
    default_name: ClassVar[str]
    config: Config

    def __init__(
        self,
        config: Config | dict[str, Any] | None = None,
        name: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        """Builds the model with random weights.

        Args:
          config: of the class `config_class`, or its `to_dict`; by default the
            released model's.
          name: Keras' name of the model.
          dtype: a Keras dtype or policy.
          **kwargs: as for `keras.Model`.
        """
        super().__init__(name=name or self.default_name, dtype=dtype, **kwargs)
        # Inputs stay float32, whatever dtype the layers compute in.
        self.autocast = False
        if config is None or isinstance(config, dict):
            config = self.config_class.from_dict(config or {})
        self.config = config
        self._build_layers()
        self.built = True

    def _build_layers(self) -> None:
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """What `keras.models.load_model` rebuilds the model from."""
        return {
            "config": self.config.to_dict(),
            "name": self.name,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """The inverse of `get_config`."""
        del custom_objects
        config = dict(config)
        config["dtype"] = keras.saving.deserialize_keras_object(config["dtype"])
        return cls(**config)

    def build(self, *input_shapes: Any) -> None:
        """Does nothing: the config determines every shape, so __init__ builds."""
        self.built = True
