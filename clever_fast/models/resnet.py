"""ResNets from timm: features are the average-pooled last stage."""

from functools import partial

from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

from clever_fast.models.backbone import Backbone


def resnet(
    block: type[nn.Module],
    layers: tuple[int, ...],
    drop_path: float = 0.0,
    *,
    width: int = 64,
    small_stem: int | None = None,
) -> nn.Module:
    """timm's ResNet without a classifier, initialised as torchvision's.

    Args:
        block: of which the stages are made.
        layers: blocks of each of the four stages.
        drop_path: stochastic depth rate.
        width: channels of the first stage; each next one has twice as many.
        small_stem: for images of 32 to 64 px, the stride of the one 3x3 convolution that takes the place of the
            7x7 stem and the max-pool: 1 as usual for CIFAR, 2 for a quarter of the work.
    """
    channels = tuple(width * 2**stage for stage in range(4))
    model = ResNet(block, layers, num_classes=0, drop_path_rate=drop_path, channels=channels, zero_init_last=False)
    if small_stem:
        model.conv1 = nn.Conv2d(3, 64, 3, stride=small_stem, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    model.embed_dim = model.num_features
    return model


def start_residuals_at_zero(network: nn.Module) -> nn.Module:
    """The network with the last BatchNorm weight of every residual block at 0 (torchvision's `zero_init_residual`)."""
    for module in network.modules():
        if isinstance(module, (BasicBlock, Bottleneck)):
            module.zero_init_last()
    return network


def start_as_torch(network: nn.Module) -> nn.Module:
    """The network, if it is a ResNet, with the initial convolutions of `nn.Conv2d`: Kaiming uniform, a = 5^(1/2)."""
    if isinstance(network, ResNet):
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
    return network


RESNETS = (
    Backbone("resnet10_small", partial(resnet, BasicBlock, (1, 1, 1, 1), width=32, small_stem=2), "small ResNet-10"),
    Backbone("resnet18", partial(resnet, BasicBlock, (2, 2, 2, 2)), "ResNet-18", in_timm=True),
    Backbone("resnet18_small", partial(resnet, BasicBlock, (2, 2, 2, 2), small_stem=1), "ResNet-18 for small images"),
    Backbone("resnet50", partial(resnet, Bottleneck, (3, 4, 6, 3)), "ResNet-50", in_timm=True),
)
