"""Networks of matrix products as TensorFlow Lite models, written without a converter.

TensorFlow Lite packs the weights of a model once, when it is opened, in the order in
which the processor's kernels read them. A matrix product of NumPy or TensorFlow packs
them at every call, which takes longer than the product itself where there are few rows.
`tf.lite.TFLiteConverter` would write the same models, in half a minute.
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
# What an operation may do with its result: "relu" takes the larger of it and 0, "clip"
# keeps it within -1 and 1.
_ACTIVATIONS = {
    "none": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "clip": schema.ActivationFunctionType.RELU_N1_TO_1,
}


class LiteGraph:
    """A graph of float32 tensors [rows, channels], each known by a number.

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
        self._model.buffers = [schema.BufferT()]  # the first is the empty one
        self._codes: dict[int, int] = {}

    def input(self, rows: int, channels: int) -> int:
        """A tensor that is set before each run."""
        tensor = self._tensor([rows, channels])
        self._graph.inputs.append(tensor)
        return tensor

    def output(self, tensor: int) -> int:
        """Makes a tensor one that can be read after each run."""
        self._graph.outputs.append(tensor)
        return tensor

    def dense(
        self,
        x: int,
        kernel: np.ndarray,
        bias: np.ndarray | None = None,
        activation: str = "none",
    ) -> int:
        """The product x @ kernel [in, out] plus bias [out]."""
        if bias is None:
            bias = np.zeros(kernel.shape[1], np.float32)
        options = schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = _ACTIVATIONS[activation]
        inputs = [x, self._constant(kernel.T), self._constant(bias)]
        shape = [self._shape(x)[0], kernel.shape[1]]
        return self._add(_OP.FULLY_CONNECTED, inputs, [shape], options)[0]

    def add(self, x: int, y: int | float, activation: str = "none") -> int:
        """The sum of two of one shape, or with a constant, a float."""
        options = schema.AddOptionsT()
        options.fusedActivationFunction = _ACTIVATIONS[activation]
        return self._pair(_OP.ADD, x, y, options)

    def multiply(self, x: int, y: int | float) -> int:
        """The product of two of one shape, one by one, or with a constant."""
        return self._pair(_OP.MUL, x, y, schema.MulOptionsT())

    def divide(self, x: int, y: int) -> int:
        """The quotient of two of one shape, one by one."""
        return self._pair(_OP.DIV, x, y, schema.DivOptionsT())

    def relu(self, x: int) -> int:
        """The larger of x and 0."""
        return self._add(_OP.RELU, [x], [self._shape(x)])[0]

    def concatenate(self, tensors: Sequence[int]) -> int:
        """The channels of all, one after the other."""
        options = schema.ConcatenationOptionsT()
        options.axis = 1
        channels = sum(self._shape(tensor)[1] for tensor in tensors)
        shape = [self._shape(tensors[0])[0], channels]
        return self._add(_OP.CONCATENATION, list(tensors), [shape], options)[0]

    def halves(self, x: int) -> list[int]:
        """The first and the second half of the channels."""
        options = schema.SplitOptionsT()
        options.numSplits = 2
        rows, channels = self._shape(x)
        axis = self._constant(np.array(1, np.int32))
        shapes = [[rows, channels // 2]] * 2
        return self._add(_OP.SPLIT, [axis, x], shapes, options)

    def write(self) -> bytes:
        """The model; its inputs and outputs are numbered as here."""
        size = sum(len(b.data) for b in self._model.buffers if b.data is not None)
        builder = flatbuffers.Builder(size + 2**20)
        builder.Finish(self._model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _shape(self, tensor: int) -> list[int]:
        return self._graph.tensors[tensor].shape

    def _tensor(self, shape: Sequence[int], dtype: type = np.float32) -> int:
        tensor = schema.TensorT()
        tensor.shape = list(shape)
        tensor.type = {
            np.float32: schema.TensorType.FLOAT32,
            np.int32: schema.TensorType.INT32,
        }[dtype]
        tensor.buffer = 0
        tensor.name = str(len(self._graph.tensors))
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _pair(self, code: int, x: int, y: int | float, options: Any) -> int:
        if isinstance(y, float):
            y = self._constant(np.array([y], np.float32))
        return self._add(code, [x, y], [self._shape(x)], options)[0]

    def _constant(self, values: np.ndarray) -> int:
        tensor = self._tensor(values.shape, values.dtype.type)
        buffer = schema.BufferT()
        buffer.data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self._model.buffers.append(buffer)
        self._graph.tensors[tensor].buffer = len(self._model.buffers) - 1
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
    """An interpreter of a model, ready to run; the weights are packed now."""
    with warnings.catch_warnings(), _quiet():
        # From 2.18 on TensorFlow says where its future versions will be found.
        warnings.simplefilter("ignore")
        interpreter = tf.lite.Interpreter(model_content=model, num_threads=num_threads)
        interpreter.allocate_tensors()
    return interpreter


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what C++ writes to standard error, a line on its delegate, from users."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
