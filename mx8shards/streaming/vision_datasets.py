"""Streaming's datasets of pictures: samples with the columns `x` and `y`, and transforms as torchvision has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mx8shards.errors import SettingError, require
from mx8shards.streaming.streaming_dataset import StreamingDataset

__all__ = [
    "StandardTransform",
    "StreamingADE20K",
    "StreamingCIFAR10",
    "StreamingCOCO",
    "StreamingImageNet",
    "StreamingVisionDataset",
]

Transform = Callable[..., Any]

# Streaming's ready-made datasets keep the defaults of an old version, and so their order.
OLD_DEFAULTS = {"partition_algo": "orig", "shuffle_algo": "py1s", "shuffle_block_size": 1 << 18}


class StandardTransform:
    """A transform of the picture and one of the target, called together.

    Args:
        transform: A function of the picture; None makes a tensor of it.
        target_transform: A function of the target.
    """

    def __init__(self, transform: Transform | None = None, target_transform: Transform | None = None) -> None:
        self.transform = transform
        self.target_transform = target_transform

    def __call__(self, x: Any, y: Any) -> tuple[Any, Any]:
        change = self.transform or require("torchvision.transforms.functional", None).to_tensor
        return change(x), self.target_transform(y) if self.target_transform else y


class StreamingVisionDataset(StreamingDataset):
    """A StreamingDataset whose samples are pairs of a picture and a target.

    Args:
        transforms: A function of both.
        transform: A function of the picture.
        target_transform: A function of the target.
        kwargs: The arguments of StreamingDataset.
    """

    def __init__(
        self,
        *,
        transforms: Transform | None = None,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**OLD_DEFAULTS, **kwargs})
        if transforms is not None and (transform is not None or target_transform is not None):
            expected = "transforms, or transform and target_transform"
            raise SettingError(subject="transforms", expected=expected, found="both")
        self.transform = transform
        self.target_transform = target_transform
        self.transforms = transforms or StandardTransform(transform, target_transform)

    def get_item(self, sample_id: int, retry: int = 7) -> Any:
        """A picture and its target.

        Args:
            sample_id: The number of the sample.
            retry: Ignored.
        """
        sample = super().get_item(sample_id)
        return self.transforms(sample["x"], sample["y"])


class StreamingCIFAR10(StreamingVisionDataset):
    """CIFAR-10."""


class StreamingImageNet(StreamingVisionDataset):
    """ImageNet."""


class StreamingADE20K(StreamingDataset):
    """ADE20K: a picture and its segmentation.

    Args:
        joint_transform: A function of both.
        transform: A function of the picture.
        target_transform: A function of the segmentation.
        kwargs: The arguments of StreamingDataset.
    """

    def __init__(
        self,
        *,
        joint_transform: Transform | None = None,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**OLD_DEFAULTS, **kwargs})
        self.joint_transform = joint_transform
        self.transform = transform
        self.target_transform = target_transform

    def get_item(self, sample_id: int, retry: int = 7) -> tuple[Any, Any]:
        """A picture and its segmentation.

        Args:
            sample_id: The number of the sample.
            retry: Ignored.
        """
        sample = super().get_item(sample_id)
        x, y = sample["x"], sample["y"]
        if self.joint_transform:
            x, y = self.joint_transform((x, y))
        return self.transform(x) if self.transform else x, self.target_transform(y) if self.target_transform else y


class StreamingCOCO(StreamingDataset):
    """COCO: a picture, and the number, size, boxes and labels of what is in it.

    Args:
        transform: A function of picture, size, boxes and labels.
        kwargs: The arguments of StreamingDataset.
    """

    def __init__(self, *, transform: Transform | None = None, **kwargs: Any) -> None:
        super().__init__(**{**OLD_DEFAULTS, **kwargs})
        self.transform = transform

    def get_item(self, sample_id: int, retry: int = 7) -> Any:
        """A picture with what is in it.

        Args:
            sample_id: The number of the sample.
            retry: Ignored.
        """
        sample = super().get_item(sample_id)
        picture, number = sample["img"].convert("RGB"), sample["img_id"]
        size, boxes, labels = (sample["htot"], sample["wtot"]), sample["bbox_sizes"], sample["bbox_labels"]
        if self.transform:
            picture, size, boxes, labels = self.transform(picture, size, boxes, labels)
        return picture, number, size, boxes, labels
