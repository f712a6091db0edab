"""What NSynth's Keras models share: a config, and how they are saved."""

from typing import Any, ClassVar

import keras

__all__ = ["ConfiguredModel"]

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"magenta_nsynth needs Keras on TensorFlow, and KERAS_BACKEND asks for "
        f"{keras.backend.backend()!r}: unset it, or set it to 'tensorflow'."
    )


class ConfiguredModel(keras.Model):
    """A Keras model whose config says every shape.

    Attributes:
      config: of the class `config_class`.
    """

    config_class: ClassVar[type]

    def __init__(
        self,
        config: Any,
        name: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, dtype=dtype, **kwargs)
        # Audio has to be taken in in float32 whatever the layers compute in.
        self.autocast = False
        if isinstance(config, dict):
            config = self.config_class.from_dict(config)
        self.config = config

    def get_config(self) -> dict[str, Any]:
        """What `keras.models.load_model` needs to build the model again."""
        return {
            "config": self.config.to_dict(),
            "name": self.name,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """The reverse of `get_config`."""
        del custom_objects
        config = dict(config)
        config["dtype"] = keras.saving.deserialize_keras_object(config["dtype"])
        return cls(**config)

    def build(self, *input_shapes: Any) -> None:
        """Nothing to do: the config says every shape, so __init__ builds."""
        self.built = True
