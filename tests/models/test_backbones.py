"""Parameter counts, sizes, memory format and stochastic depth of the backbones."""

import pytest
import torch

from clever_fast.models import BACKBONES
from clever_fast.models.heads import WeightNormLinear

COUNTS = {
    "resnet18": 11_176_512,
    "resnet50": 23_508_032,
    "vit_tiny_patch16_224": 5_524_416,
    "vit_small_patch16_224": 21_665_664,
    "vit_base_patch16_224": 85_798_656,
}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_parameter_counts(name, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in BACKBONES[name].build(0.0).parameters()) == count


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("size", [224, 96])
def test_features_of_both_crop_sizes_follow_the_image(name, size):
    torch.manual_seed(0)
    model = BACKBONES[name].build(0.0).eval()
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        features = model(x)
        assert features.shape == (2, model.embed_dim)
        assert (features[0] - features[1]).abs().max() > 1e-3
        channels_last = model.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(features, channels_last, rtol=1e-4, atol=1e-5)


def test_resnet_keeps_channels_last_to_the_end():
    model = BACKBONES["resnet18"].build(0.0).to(memory_format=torch.channels_last)
    seen = []
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda _m, _i, out: seen.append(out.is_contiguous(memory_format=torch.channels_last))
            )
    model(torch.randn(2, 3, 96, 96).contiguous(memory_format=torch.channels_last))
    assert len(seen) == 20
    assert all(seen)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18"])
def test_drop_path_acts_in_training_alone(name):
    torch.manual_seed(0)
    model, x = BACKBONES[name].build(0.5), torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        model.train()
        if name == "vit_tiny_patch16_224":  # no BatchNorm: only drop path can differ
            assert not torch.equal(model(x), model(x))
        model.eval()
        assert torch.equal(model(x), model(x))
    assert any(type(m).__name__ == "DropPath" and m.drop_prob > 0 for m in model.modules())


def test_last_layer_is_weight_normalised_linear():
    torch.manual_seed(0)
    layer = WeightNormLinear(6, 5)
    reference = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(6, 5, bias=False))
    with torch.no_grad():
        layer.weight_g.uniform_(0.5, 2)
        reference.parametrizations.weight.original0.copy_(layer.weight_g)
        reference.parametrizations.weight.original1.copy_(layer.weight_v * 3)  # its length does not count
    x = torch.randn(4, 6)
    torch.testing.assert_close(layer(x), reference(x))
    assert set(layer.state_dict()) == {"weight_g", "weight_v"}
