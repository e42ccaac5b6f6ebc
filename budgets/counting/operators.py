"""The operators that cost no core MACs: element-wise work, and work that is none.

An operator is in exactly one of three places: a formula, the element-wise work, or the list of those that only
move, make or look up data. One that is in none of them is an error, never a silent zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch._ops import HigherOrderOperator, OpOverload

#: Arithmetic on elements that PyTorch, or a PyTorch as old as we support, does not tag as pointwise: activations,
#: norms, reductions, pooling, resampling, sorting.
_ELEMENTWISE = """
_batch_norm_no_update _batch_norm_with_update _batch_norm_with_update_functional _native_batch_norm_legit
_native_batch_norm_legit_functional _native_batch_norm_legit_no_training cudnn_batch_norm miopen_batch_norm
native_batch_norm native_group_norm native_layer_norm _fused_rms_norm _weight_norm_interface renorm
_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d avg_pool2d avg_pool3d
fractional_max_pool2d fractional_max_pool3d max_pool2d_with_indices max_pool3d_with_indices max_unpool2d
max_unpool3d
upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d
_upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d
_upsample_bilinear2d_aa _upsample_bicubic2d_aa grid_sampler_2d grid_sampler_3d _grid_sampler_2d_cpu_fallback
affine_grid_generator
_softmax _log_softmax _safe_softmax logsumexp logcumsumexp log_sigmoid_forward glu hardswish mish _prelu_kernel
leaky_relu elu celu selu hardtanh
rrelu_with_noise threshold gelu hardsigmoid softplus _add_relu abs eq ne lt le gt ge floor_divide copysign
heaviside polar complex isin bucketize searchsorted
all any amax amin aminmax argmax argmin max min mean median nanmedian nansum sum prod norm
linalg_vector_norm linalg__powsum var var_mean std std_mean count_nonzero cummax cummin cumprod cumsum mode kthvalue
sort topk trace dist bincount histc linalg_cross segment_reduce
col2im index_add index_reduce scatter_add scatter_reduce _embedding_bag _embedding_bag_forward_only
_thnn_fused_gru_cell _thnn_fused_lstm_cell native_dropout _fused_dropout _masked_scale
mse_loss smooth_l1_loss huber_loss soft_margin_loss binary_cross_entropy binary_cross_entropy_with_logits
nll_loss_forward nll_loss2d_forward multi_margin_loss multilabel_margin_loss_forward _ctc_loss
_is_all_true _is_any_true allclose _masked_softmax embedding_renorm
fake_quantize_per_tensor_affine_cachemask fake_quantize_per_tensor_affine_cachemask_tensor_qparams
fake_quantize_per_channel_affine_cachemask _fused_moving_avg_obs_fq_helper _fused_moving_avg_obs_fq_helper_functional
quantize_per_tensor quantize_per_tensor_dynamic quantize_per_channel dequantize
_foreach_abs _foreach_add _foreach_addcdiv _foreach_addcmul _foreach_clamp_max _foreach_clamp_min _foreach_div
_foreach_exp _foreach_lerp _foreach_maximum _foreach_minimum _foreach_mul _foreach_neg _foreach_norm _foreach_pow
_foreach_reciprocal _foreach_rsqrt _foreach_sigmoid _foreach_sign _foreach_sqrt _foreach_sub _foreach_tanh
"""

#: What becomes of those where a forward differentiates.
_BACKWARD = """
_softmax_backward_data _log_softmax_backward_data _masked_softmax_backward _fused_rms_norm_backward
native_batch_norm_backward native_group_norm_backward native_layer_norm_backward _weight_norm_interface_backward
_adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward adaptive_max_pool2d_backward adaptive_max_pool3d_backward
avg_pool2d_backward avg_pool3d_backward max_pool2d_with_indices_backward max_pool3d_with_indices_backward
upsample_nearest1d_backward upsample_nearest2d_backward upsample_nearest3d_backward upsample_linear1d_backward
upsample_bilinear2d_backward upsample_trilinear3d_backward upsample_bicubic2d_backward
_upsample_nearest_exact1d_backward _upsample_nearest_exact2d_backward _upsample_nearest_exact3d_backward
_upsample_bilinear2d_aa_backward _upsample_bicubic2d_aa_backward grid_sampler_2d_backward grid_sampler_3d_backward
reflection_pad1d_backward reflection_pad2d_backward reflection_pad3d_backward
replication_pad1d_backward replication_pad2d_backward replication_pad3d_backward
_prelu_kernel_backward leaky_relu_backward elu_backward glu_backward hardtanh_backward hardsigmoid_backward
hardswish_backward hardshrink_backward softshrink_backward softplus_backward log_sigmoid_backward
rrelu_with_noise_backward embedding_dense_backward _segment_reduce_backward _thnn_fused_gru_cell_backward
_thnn_fused_lstm_cell_backward_impl mse_loss_backward smooth_l1_loss_backward huber_loss_backward
soft_margin_loss_backward binary_cross_entropy_backward nll_loss_backward nll_loss2d_backward multi_margin_loss_backward
multilabel_margin_loss_backward
"""

#: Makes, moves or looks up data; asks about it; or draws it at random.
_FREE = """
arange empty empty_like empty_permuted empty_strided eye full full_like linspace logspace new_empty
new_empty_strided new_full new_ones new_zeros ones ones_like range scalar_tensor zeros zeros_like tril_indices
triu_indices bartlett_window blackman_window hamming_window hann_window kaiser_window fft_fftfreq fft_rfftfreq
rand rand_like randint randint_like randn randn_like randperm bernoulli exponential geometric log_normal cauchy
binomial multinomial normal normal_functional poisson random uniform _sample_dirichlet _standard_gamma
_copy_from _to_copy clone copy detach detach_copy fill lift lift_fresh lift_fresh_copy zero set resize resize_as
_resize_output _reshape_copy _reshape_alias view_copy alias_copy as_strided_copy diagonal_copy expand_copy
narrow_copy permute_copy split_copy split_with_sizes_copy squeeze_copy t_copy transpose_copy unbind_copy
unfold_copy unsqueeze_copy slice_copy select_copy _unsafe_view unsafe_split unsafe_split_with_sizes
_has_same_storage_numel _make_dual _unpack_dual _new_zeros_with_same_feature_meta _fw_primal _efficientzerotensor
_conj _neg_view real imag as_strided squeeze unsqueeze t transpose swapdims _pack_padded_sequence
_foreach_clone _foreach_copy _foreach_zero
block_diag cat _chunk_cat channel_shuffle native_channel_shuffle constant_pad_nd diag_embed
diagonal_scatter flip im2col pixel_shuffle pixel_unshuffle reflection_pad1d reflection_pad2d reflection_pad3d repeat
replication_pad1d replication_pad2d replication_pad3d roll rot90 select_scatter slice_scatter as_strided_scatter
stack tril triu
embedding gather index _unsafe_index index_copy index_fill index_put _index_put_impl _unsafe_index_put index_select put
_jagged_to_padded_dense_forward _padded_dense_to_jagged_forward
masked_fill masked_scatter masked_select nonzero nonzero_static scatter take where
unique_consecutive unique_dim _unique _unique2 repeat_interleave
_local_scalar_dense equal _assert_async _functional_assert_async _assert_scalar _assert_tensor_metadata
sym_constrain_range sym_constrain_range_for_size
select_backward slice_backward diagonal_backward unfold_backward
masked_scatter_backward
_coalesce _coalesced _indices _values _nnz indices values coalesce crow_indices col_indices ccol_indices row_indices
sparse_dim dense_dim _convert_indices_from_coo_to_csr _convert_indices_from_csr_to_coo sparse_compressed_tensor
_sparse_coo_tensor_with_dims _sparse_coo_tensor_with_dims_and_tensors
_sparse_compressed_tensor_unsafe sparse_resize sparse_resize_and_clear _to_dense _to_sparse _to_sparse_csr
_to_sparse_csc _to_sparse_bsr _to_sparse_bsc sparse_mask is_coalesced
"""

#: What goes to and from four and eight bits.
_BITSANDBYTES = """
dequantize_4bit quantize_4bit dequantize_blockwise quantize_blockwise int8_vectorwise_quant int8_vectorwise_dequant
int8_double_quant int8_mm_dequant
"""

#: With torchvision's operators on boxes and regions: sampling and comparing, no products of weights.
ELEMENTWISE = frozenset(
    {f"aten::{name}" for name in (_ELEMENTWISE + _BACKWARD).split()}
    | {f"torchvision::{name}" for name in ("nms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool")}
    | {f"bitsandbytes::{name}" for name in _BITSANDBYTES.split()}
    | {f"prims::{name}" for name in ("add", "sub", "mul", "div", "neg")}  # of tangents that are zero
    | {f"quantized::{name}" for name in ("add", "add_relu", "mul", "cat", "leaky_relu", "hardswish")}
)
FREE = frozenset(_FREE.split())
#: What asks about a tensor and reads none of it.
ASKS = frozenset({"prim::device", "prim::layout"} | {f"aten::{name}" for name in (
    "is_same_size", "is_pinned", "sym_size", "sym_stride", "sym_numel", "sym_storage_offset", "is_contiguous",
)})  # fmt: skip
INDEXES = frozenset({"aten::index", "aten::_unsafe_index"})
#: What makes sparse tensors, which store as much as values say.
STORES_VALUES = frozenset(f"aten::{name}" for name in (
    "_to_sparse", "_to_sparse_csr", "_to_sparse_csc", "_to_sparse_bsr", "_to_sparse_bsc", "_coalesce",
))  # fmt: skip
#: Enough to look for tensors among those of an operator without a schema.
MOST_ARGUMENTS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What an operator's name, tags and schema say of it, whatever it is called with.

    `name` is without overload and in-place underscore: "aten::relu" for relu and relu_ alike. A `free` one only makes,
    moves or looks up data. `writes` unless its results only alias what it was given; `dynamic` if a result's shape may
    depend on values; `makes` if it makes tensors out of none; `places` are the positions of arguments that can be
    tensors or lists of them, and `mutates` positions and names of those that are written to.
    """

    name: str
    free: bool = False
    elementwise: bool = False
    writes: bool = True
    dynamic: bool = False
    makes: bool = False
    places: Sequence[int] = range(MOST_ARGUMENTS)
    mutates: Sequence[tuple[int, str]] = ()


@cache
def facts_of(operator: OpOverload | HigherOrderOperator) -> Facts:
    """Look an operator up, once; of one that takes functions only the name is known."""
    if isinstance(operator, HigherOrderOperator):
        return Facts(name=f"higher_order::{operator}")
    schema = operator._schema
    name = schema.name if schema.name.endswith("__") else schema.name.removesuffix("_")
    space, _, short = name.partition("::")
    free = space == "profiler" or (space in {"aten", "prim"} and (operator.is_view or short in FREE))
    # One that is asked for a number, as a library's version when it is imported, has nothing to work on.
    free = free or (
        not schema.arguments and [str(each.type) for each in schema.returns] in (["int"], ["bool"], ["str"])
    )
    pointwise = space == "aten" and torch.Tag.pointwise in operator.tags
    arguments = tuple(enumerate(schema.arguments))
    places = tuple(i for i, argument in arguments if "Tensor" in str(argument.type))
    mutates = tuple((i, each.name) for i, each in arguments if each.alias_info and each.alias_info.is_write)
    return Facts(
        name=name,
        free=free,
        elementwise=not free and (pointwise or name in ELEMENTWISE),
        writes=not any(result.alias_info for result in schema.returns),
        dynamic=name in INDEXES | {"torchvision::nms"} or torch.Tag.dynamic_output_shape in operator.tags,
        makes=not places and any(argument.name == "device" for argument in schema.arguments),
        places=places,
        mutates=mutates,
    )


def changes_shape_with_data(facts: Facts, args: Any) -> bool:
    """Return whether the result's shape depends on values: nonzero, NMS, a boolean index."""
    if facts.name in INDEXES:
        return any(t.dtype in {torch.bool, torch.uint8} for t in args[1] if t is not None)
    return facts.dynamic
