"""Image sets read from their publishers' files: the only place that knows foreign formats."""

from seval.data.sources import cifar, fashion_mnist, semi_aves, small_imagenet127, stl10
from seval.data.sources.raw import Source

__all__ = ["SOURCES", "Source"]

SOURCES = {
    "cifar10": cifar.CIFAR10,
    "cifar100": cifar.CIFAR100,
    "fashion_mnist": fashion_mnist.FASHION_MNIST,
    "semi_aves": semi_aves.SEMI_AVES,
    "small_imagenet127": small_imagenet127.SMALL_IMAGENET127,
    "small_imagenet127_64": small_imagenet127.SMALL_IMAGENET127_64,
    "stl10": stl10.STL10,
    "tiny": fashion_mnist.TINY,
}
