"""Writes networks of matrix products as TensorFlow Lite models.

TensorFlow Lite packs a model's weights once, when it opens the model, into the order in
which the processor's kernels read them. NumPy and TensorFlow pack them in every matrix
product, which takes longer than the product itself if there are few rows.
`tf.lite.TFLiteConverter` could write the same models, but takes half a minute.
"""

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import flatbuffers
import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

__all__ = ["LiteGraph", "open_model"]

_OP = schema.BuiltinOperator
_FLOAT, _INT, _INT8 = (np.dtype(t) for t in (np.float32, np.int32, np.int8))
_TYPES = {
    _FLOAT: schema.TensorType.FLOAT32,
    _INT: schema.TensorType.INT32,
    _INT8: schema.TensorType.INT8,
}
_INT8_MAX = 127
# What an operation can do to its result; "clip" limits it to -1..1.
_ACTIVATIONS = {
    "none": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "clip": schema.ActivationFunctionType.RELU_N1_TO_1,
}


class LiteGraph:
    """A graph of float32 tensors [rows, channels], which are identified by numbers.

    Every method but `write` adds an operation and returns the number of its result.
    """

    def __init__(self) -> None:
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._graph.inputs, self._graph.outputs = [], []
        self._model = schema.ModelT()
        self._model.version = 3
        self._model.subgraphs = [self._graph]
        self._model.operatorCodes = []
        self._model.buffers = [schema.BufferT()]  # the first must be empty
        self._codes: dict[int, int] = {}

    def input(self, rows: int, channels: int) -> int:
        """Adds a tensor that the caller sets before each run."""
        tensor = self._tensor([rows, channels])
        self._graph.inputs.append(tensor)
        return tensor

    def output(self, tensor: int) -> int:
        """Lets the caller read a tensor after each run."""
        self._graph.outputs.append(tensor)
        return tensor

    def dense(
        self,
        x: int,
        kernel: np.ndarray,
        bias: np.ndarray | None = None,
        activation: str = "none",
        int8: bool = False,
    ) -> int:
        """The product x @ kernel [in, out] plus bias [out].

        With `int8` the kernel is kept as whole numbers, with a scale for each output
        channel. TensorFlow Lite rounds each row of x in the same way when it runs, and
        adds the products of these numbers without error.
        """
        if bias is None:
            bias = np.zeros(kernel.shape[1], np.float32)
        options = schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = _ACTIVATIONS[activation]
        options.asymmetricQuantizeInputs = int8
        weights = self._rounded(kernel.T) if int8 else self._constant(kernel.T)
        inputs = [x, weights, self._constant(bias)]
        shape = [self._shape(x)[0], kernel.shape[1]]
        return self._add(_OP.FULLY_CONNECTED, inputs, [shape], options)[0]

    def add(self, x: int, y: int | float, activation: str = "none") -> int:
        """The sum of two tensors of one shape, or of a tensor and a float."""
        options = schema.AddOptionsT()
        options.fusedActivationFunction = _ACTIVATIONS[activation]
        return self._pair(_OP.ADD, x, y, options)

    def multiply(self, x: int, y: int | float) -> int:
        """The elementwise product of two tensors, or of a tensor and a float."""
        return self._pair(_OP.MUL, x, y, schema.MulOptionsT())

    def divide(self, x: int, y: int) -> int:
        """The elementwise quotient of two tensors of one shape."""
        return self._pair(_OP.DIV, x, y, schema.DivOptionsT())

    def relu(self, x: int) -> int:
        """The larger of x and 0, elementwise."""
        return self._add(_OP.RELU, [x], [self._shape(x)])[0]

    def sigmoid(self, x: int) -> int:
        """1 / (1 + exp(-x)), elementwise, as the library approximates it."""
        return self._add(_OP.LOGISTIC, [x], [self._shape(x)])[0]

    def tanh(self, x: int) -> int:
        """The hyperbolic tangent, elementwise, as the library approximates it."""
        return self._add(_OP.TANH, [x], [self._shape(x)])[0]

    def concatenate(self, tensors: Sequence[int], axis: int = 1) -> int:
        """Concatenates the channels, or with `axis` 0 the rows."""
        options = schema.ConcatenationOptionsT()
        options.axis = axis
        shape = list(self._shape(tensors[0]))
        shape[axis] = sum(self._shape(tensor)[axis] for tensor in tensors)
        return self._add(_OP.CONCATENATION, list(tensors), [shape], options)[0]

    def split(self, x: int, count: int, axis: int = 1) -> list[int]:
        """Splits the channels, or with `axis` 0 the rows, into equal parts."""
        options = schema.SplitOptionsT()
        options.numSplits = count
        number = self._constant(np.array(axis, _INT))
        shape = list(self._shape(x))
        shape[axis] //= count
        return self._add(_OP.SPLIT, [number, x], [shape] * count, options)

    def write(self) -> bytes:
        """The model's bytes; its tensors have the same numbers as here."""
        size = sum(len(b.data) for b in self._model.buffers if b.data is not None)
        builder = flatbuffers.Builder(size + 2**20)
        builder.Finish(self._model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _shape(self, tensor: int) -> list[int]:
        return self._graph.tensors[tensor].shape

    def _tensor(self, shape: Sequence[int], dtype: np.dtype = _FLOAT) -> int:
        tensor = schema.TensorT()
        tensor.shape = list(shape)
        tensor.type = _TYPES[dtype]
        tensor.buffer = 0
        tensor.name = str(len(self._graph.tensors))
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _pair(self, code: int, x: int, y: int | float, options: Any) -> int:
        if isinstance(y, float):
            y = self._constant(np.array([y], np.float32))
        return self._add(code, [x, y], [self._shape(x)], options)[0]

    def _constant(self, values: np.ndarray) -> int:
        tensor = self._tensor(values.shape, values.dtype)
        buffer = schema.BufferT()
        buffer.data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self._model.buffers.append(buffer)
        self._graph.tensors[tensor].buffer = len(self._model.buffers) - 1
        return tensor

    def _rounded(self, kernel: np.ndarray) -> int:
        """A constant [out, in] in 8 bits, with a scale for each output channel."""
        scales = np.abs(kernel).max(axis=1) / np.float32(_INT8_MAX)
        scales = np.maximum(scales, np.finfo(np.float32).tiny)  # a channel of zeros
        rounded = np.rint(kernel / scales[:, None])
        tensor = self._constant(rounded.clip(-_INT8_MAX, _INT8_MAX).astype(_INT8))
        quantization = schema.QuantizationParametersT()
        quantization.scale = scales
        quantization.zeroPoint = np.zeros(len(scales), np.int64)
        quantization.quantizedDimension = 0
        self._graph.tensors[tensor].quantization = quantization
        return tensor

    def _add(
        self,
        code: int,
        inputs: list[int],
        shapes: list[list[int]],
        options: Any = None,
    ) -> list[int]:
        if code not in self._codes:
            operator_code = schema.OperatorCodeT()
            operator_code.builtinCode = operator_code.deprecatedBuiltinCode = code
            operator_code.version = 1
            self._codes[code] = len(self._model.operatorCodes)
            self._model.operatorCodes.append(operator_code)
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes[code]
        operator.inputs = inputs
        operator.outputs = [self._tensor(shape) for shape in shapes]
        if options is not None:
            operator.builtinOptions = options
            name = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        self._graph.operators.append(operator)
        return operator.outputs


def open_model(model: bytes, num_threads: int) -> tf.lite.Interpreter:
    """Opens a model, ready to run; this packs its weights."""
    with warnings.catch_warnings(), _quiet():
        # From 2.18 on TensorFlow announces that TensorFlow Lite will move.
        warnings.simplefilter("ignore")
        interpreter = tf.lite.Interpreter(model_content=model, num_threads=num_threads)
        interpreter.allocate_tensors()
    return interpreter


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides a line about delegates that C++ writes to standard error."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
