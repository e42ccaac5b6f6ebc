"""ONNX's operators that are no core work: element by element, or free. Any other has a formula, or is refused."""

#: Operators that calculate, each element counted once, beside the MACs.
ELEMENTWISE = frozenset(
    """
    Abs Acos Acosh Add AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Bernoulli
    BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Ceil Celu Clip Cos Cosh CumProd CumSum
    DequantizeLinear Div Dropout DynamicQuantizeLinear Elu Equal Erf Exp Floor Gelu GlobalAveragePool GlobalLpPool
    GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HammingWindow HannWindow HardSigmoid
    HardSwish Hardmax InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log
    LogSoftmax LpNormalization LpPool Max MaxPool MaxRoiPool MaxUnpool Mean MeanVarianceNormalization
    MelWeightMatrix Min Mish Mod Mul Multinomial Neg NegativeLogLikelihoodLoss NonMaxSuppression NonZero Not Or
    PRelu Pow QuantizeLinear RMSNormalization RandomNormal RandomNormalLike RandomUniform RandomUniformLike
    Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Relu Resize RoiAlign RotaryEmbedding Round Selu Shrink Sigmoid Sign Sin Sinh Softmax
    SoftmaxCrossEntropyLoss Softplus Softsign Sqrt Sub Sum SwiGLU Swish Tan Tanh ThresholdedRelu TopK Unique
    Upsample Where Xor
    """.split()  # noqa: SIM905 -- a list of two hundred strings reads worse
)

#: Operators that hold, make, pick or move data.
FREE = frozenset(
    """
    BitCast Cast CastLike CenterCropPad Col2Im Compress Concat ConcatFromSequence Constant ConstantOfShape
    DepthToSpace Expand EyeLike Flatten Gather GatherElements GatherND Identity Loop If Scan OneHot Optional
    OptionalGetElement OptionalHasElement Pad Range Reshape ReverseSequence Scatter ScatterElements ScatterND
    SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap Shape Size
    Slice SpaceToDepth Split SplitToSequence Squeeze TensorScatter Tile Transpose Trilu Unsqueeze
    """.split()  # noqa: SIM905 -- a list of two hundred strings reads worse
)

#: Those whose result shares the memory of what they look at.
VIEWS = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})

#: Those whose result is what they look at, a part of it, or it several times.
CARRIERS = VIEWS | {"Expand", "Slice", "Tile", "Transpose"}

#: Which inputs of an operator are floating-point numbers and yet no parameters: statistics, scales, sizes.
NO_WEIGHTS = {
    "BatchNormalization": {3, 4},
    "Clip": {1, 2},
    "DequantizeLinear": {1, 2},
    "Dropout": {1, 2},
    "GRU": {4, 5, 6},
    "LSTM": {4, 5, 6},
    "MatMulInteger": {2, 3},
    "RNN": {4, 5, 6},
    "ConvInteger": {2, 3},
    "Pad": {2},
    "QLinearConv": {1, 2, 4, 5, 6, 7},
    "QLinearMatMul": {1, 2, 4, 5, 6, 7},
    "QuantizeLinear": {1, 2},
    "Resize": {1, 2},
    "Upsample": {1},
}

#: Which inputs are parameters in whole numbers.
QUANTIZED_WEIGHTS = {
    "ConvInteger": {1},
    "DequantizeLinear": {0},
    "MatMulInteger": {1},
    "QLinearConv": {3, 8},
    "QLinearMatMul": {3},
}
