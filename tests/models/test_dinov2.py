from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from emavos.models.dinov2 import Block, DinoV2
from emavos.weights.convert import load_dinov2


def small(depth=2, seed=0, **options):
    torch.manual_seed(seed)
    model = DinoV2(depth, width=12, heads=3, grid=3, **options).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def write_graph(model, path, leave_out=()):
    """The parameters of `model`, named as the export of Hugging Face's module names them."""
    onnx = pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
    state = model.state_dict()
    nodes, tensors = [], []

    def use(kind, layer, name, tensor):
        if layer not in leave_out:
            tensors.append(onnx.numpy_helper.from_array(tensor.contiguous().numpy(), name))
            nodes.append(onnx.helper.make_node(kind, ["x", name], ["x"], name=f"/backbone/{layer}/{kind}"))

    patch = "embeddings/patch_embeddings/projection"
    use("Conv", patch, "backbone.embeddings.patch_embeddings.projection.weight", state["patch.weight"])
    use("Conv", patch, "backbone.embeddings.patch_embeddings.projection.bias", state["patch.bias"])
    use("Expand", "embeddings", "backbone.embeddings.cls_token", state["class_token"])
    use("Reshape", "embeddings", "onnx::Reshape_1", state["positions"].flatten(2).mT)
    use("Concat", "embeddings", "onnx::Concat_2", state["class_position"])
    for i in range(len(model.blocks)):
        attention = {}
        for kind in ("weight", "bias"):
            parts = state[f"blocks.{i}.attention.qkv.{kind}"].chunk(3)
            attention[kind] = dict(zip(("query", "key", "value"), parts, strict=True))
        linear = {
            f"attention/attention/{name}": (attention["weight"][name], attention["bias"][name])
            for name in ("key", "value", "query")
        }
        for theirs, ours in (
            ("attention/output/dense", "attention.project"),
            ("mlp/fc1", "mlp.0"),
            ("mlp/fc2", "mlp.2"),
        ):
            linear[theirs] = (state[f"blocks.{i}.{ours}.weight"], state[f"blocks.{i}.{ours}.bias"])
        for name, (weight, bias) in linear.items():
            layer = f"encoder/layer.{i}/{name}"
            use("MatMul", layer, f"onnx::MatMul_{len(tensors)}", weight.mT)
            use("Add", layer, f"backbone.{layer.replace('/', '.')}.bias", bias)
        for name in ("norm1", "norm2"):
            for kind in ("weight", "bias"):
                key = f"encoder.layer.{i}.{name}.{kind}"
                use("Mul", key.replace(".", "/"), f"backbone.{key}", state[f"blocks.{i}.{name}.{kind}"])
        for name in ("1", "2"):
            key = f"encoder.layer.{i}.layer_scale{name}.lambda1"
            use("Mul", key.replace(".", "/"), f"backbone.{key}", state[f"blocks.{i}.scale{name}"])
    for kind in ("weight", "bias"):
        use("Mul", "layernorm", f"backbone.layernorm.{kind}", state.get(f"norm.{kind}", torch.ones(12)))
    nodes.append(onnx.helper.make_node("MatMul", ["x", "head"], ["x"], name="/decoder/MatMul"))
    tensors.append(onnx.numpy_helper.from_array(torch.ones(12, 1).numpy(), "head"))
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "small", [], [], tensors)), path)
    return path


@pytest.mark.parametrize(("h", "w"), [(1, 1), (3, 3), (2, 5), (7, 4)])
def test_each_cell_of_16_pixels_gets_features_of_unit_variance(h, w):
    features = small()(torch.randn(2, 3, 16 * h, 16 * w))
    assert features.shape == (2, 12, h, w)
    assert features.mean(dim=1).abs().max() < 1e-4
    assert (features.var(dim=1, correction=0) - 1).abs().max() < 1e-2


def test_frames_that_are_no_whole_number_of_cells_are_refused():
    with pytest.raises(ValueError, match="frames are 32x40; pad both sides to multiples of 16"):
        small()(torch.zeros(1, 3, 32, 40))


def test_a_depth_or_a_number_of_heads_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="depth is 0"):
        DinoV2(0)
    with pytest.raises(ValueError, match="width 12 does not divide into 5 heads"):
        DinoV2(1, width=12, heads=5)


def test_positions_are_the_trained_ones_at_the_trained_grid_and_between_them_elsewhere():
    model = small()
    assert torch.equal(model.positions_at(3, 3), model.positions)
    with torch.no_grad():
        model.positions.copy_(torch.arange(12.0).view(1, 12, 1, 1).expand(1, 12, 3, 3))
        assert torch.allclose(model.positions_at(5, 4), model.positions[..., :1, :1].expand(1, 12, 5, 4))


def test_positions_in_half_precision_are_interpolated_in_single():
    model = small().to(torch.bfloat16)
    single = functional.interpolate(model.positions.float(), size=(5, 4), mode="bicubic")
    assert torch.equal(model.positions_at(5, 4), single.to(torch.bfloat16))


def test_a_patch_of_14_pixels_is_a_cell_of_16():
    model = small(depth=1)
    model.blocks = torch.nn.ModuleList()  # what remains looks at one patch at a time
    frames = torch.randn(1, 3, 48, 48)
    changed = frames.clone()
    changed[:, :, 18:30, 18:30] += 1
    differs = (model(frames) - model(changed)).abs().amax(dim=(0, 1)) > 0
    assert differs.nonzero().tolist() == [[1, 1]]


def test_a_block_is_the_attention_and_the_perceptron_of_the_paper():
    torch.manual_seed(0)
    block, tokens = Block(12, 3).eval(), torch.randn(2, 5, 12)
    torch.nn.init.normal_(block.scale1)
    torch.nn.init.normal_(block.scale2)
    theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": block.attention.qkv.weight,
            "in_proj_bias": block.attention.qkv.bias,
            "out_proj.weight": block.attention.project.weight,
            "out_proj.bias": block.attention.project.bias,
        }
    )
    x = block.norm1(tokens)
    expected = tokens + block.scale1 * theirs(x, x, x, need_weights=False)[0]
    expected = expected + block.scale2 * block.mlp(block.norm2(expected))
    assert torch.allclose(block(tokens), expected, atol=1e-5)


@pytest.mark.parametrize("learned_norm", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_weights_of_an_onnx_graph_are_found_whatever_the_exporter_called_them(
    tmp_path, depth, learned_norm
):
    source = small(3, learned_norm=True)
    path = write_graph(source, tmp_path / "vit.onnx")
    model = small(depth, seed=1, learned_norm=learned_norm)
    load_dinov2(model, path)
    wanted = source.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, wanted[name]), name


def test_a_graph_of_another_network_is_refused_by_what_differs(tmp_path):
    path = write_graph(small(1), tmp_path / "vit.onnx")
    with pytest.raises(ValueError, match=r"vit\.onnx does not contain this DINOv2: missing blocks\.1\."):
        load_dinov2(small(2), path)
    with pytest.raises(ValueError, match=r"attention\.qkv\.weight is \(36, 12\), not \(72, 24\)"):
        load_dinov2(DinoV2(1, width=24, heads=3, grid=3), path)
    with pytest.raises(ValueError, match=r"positions is \(1, 9, 12\), not \(1, 12, 4, 4\)"):
        load_dinov2(DinoV2(1, width=12, heads=3, grid=4), path)
    path = write_graph(small(1), path, leave_out=["encoder/layer.0/attention/attention/key"])
    with pytest.raises(ValueError, match=r"missing blocks\.0\.attention\.qkv\.weight"):
        load_dinov2(small(1), path)


def test_a_file_that_is_no_onnx_graph_is_refused_by_its_name(tmp_path):
    pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
    (tmp_path / "x.onnx").write_bytes(b"no protobuf at all")
    with pytest.raises(ValueError, match=r"x\.onnx is damaged, or not an ONNX graph"):
        load_dinov2(small(), tmp_path / "x.onnx")
    with pytest.raises(FileNotFoundError):
        load_dinov2(small(), tmp_path / "none.onnx")


def test_without_onnx_the_extra_is_named(tmp_path, without_package):
    without_package("onnx")
    with pytest.raises(ImportError, match=r"\[onnx\]"):
        load_dinov2(small(), tmp_path / "vit.onnx")
