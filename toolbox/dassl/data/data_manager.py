"""Data set, transforms and loaders of one experiment."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
import torchvision.transforms as T
from tabulate import tabulate
from torch.utils.data import DataLoader, Dataset
from yacs.config import CfgNode

from ..utils import read_image
from .datasets import Datum, build_dataset
from .samplers import build_sampler
from .transforms import INTERPOLATION_MODES, build_transform

log = logging.getLogger("dassl")

Transform = Callable | Sequence[Callable] | None


def build_data_loader(
    cfg: CfgNode,
    sampler_type: str = "SequentialSampler",
    data_source: list[Datum] | None = None,
    batch_size: int = 64,
    n_domain: int = 0,
    n_ins: int = 2,
    tfm: Transform = None,
    is_train: bool = True,
    dataset_wrapper: type[Dataset] | None = None,
) -> DataLoader:
    """A loader of one split. In training the last, smaller batch is dropped, unless it is the only one.

    Raises:
        ValueError: the split gives not a single batch.
    """
    sampler = build_sampler(
        sampler_type, cfg=cfg, data_source=data_source, batch_size=batch_size, n_domain=n_domain, n_ins=n_ins
    )
    loader = DataLoader(
        (dataset_wrapper or DatasetWrapper)(cfg, data_source, transform=tfm, is_train=is_train),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        drop_last=is_train and len(data_source) >= batch_size,
        pin_memory=torch.cuda.is_available() and cfg.USE_CUDA,
    )
    if len(loader) == 0:
        raise ValueError(
            f"{cfg.DATASET.NAME}: {len(data_source)} images with {sampler_type} and batch size {batch_size} "
            "make not a single batch"
        )
    return loader


class DataManager:
    """Builds the data set that the config names, and its loaders.

    Args:
        cfg: config.
        custom_tfm_train: used instead of the transform of `cfg.INPUT`, on training images.
        custom_tfm_test: the same, on validation and test images.
        dataset_wrapper: class used instead of `DatasetWrapper`.

    Attributes: `dataset`, `train_loader_x`, `train_loader_u` and `val_loader` (None where the data set has no such
    split), `test_loader` (None only with TEST.NO_TEST), `num_classes`, `num_source_domains`, `lab2cname`.
    """

    def __init__(
        self,
        cfg: CfgNode,
        custom_tfm_train: Transform = None,
        custom_tfm_test: Transform = None,
        dataset_wrapper: type[Dataset] | None = None,
    ) -> None:
        dataset = build_dataset(cfg)
        if custom_tfm_train is None:
            custom_tfm_train = build_transform(cfg, is_train=True)
        else:
            log.info("* Using custom transform for training")
        if custom_tfm_test is None:
            custom_tfm_test = build_transform(cfg, is_train=False)
        else:
            log.info("* Using custom transform for testing")

        def train_loader(data_source: list[Datum], node: CfgNode) -> DataLoader:
            return build_data_loader(
                cfg,
                node.SAMPLER,
                data_source,
                node.BATCH_SIZE,
                node.N_DOMAIN,
                node.N_INS,
                tfm=custom_tfm_train,
                is_train=True,
                dataset_wrapper=dataset_wrapper,
            )

        def test_loader(data_source: list[Datum]) -> DataLoader:
            node = cfg.DATALOADER.TEST
            return build_data_loader(
                cfg,
                node.SAMPLER,
                data_source,
                node.BATCH_SIZE,
                tfm=custom_tfm_test,
                is_train=False,
                dataset_wrapper=dataset_wrapper,
            )

        if not dataset.test and not cfg.TEST.NO_TEST:
            raise ValueError(f"{cfg.DATASET.NAME} has no test images")
        nodes = cfg.DATALOADER
        self.dataset = dataset
        self.train_loader_x = train_loader(dataset.train_x, nodes.TRAIN_X)
        self.train_loader_u = None
        if dataset.train_u:
            node_u = nodes.TRAIN_X if nodes.TRAIN_U.SAME_AS_X else nodes.TRAIN_U
            self.train_loader_u = train_loader(dataset.train_u, node_u)
        self.val_loader = test_loader(dataset.val) if dataset.val else None
        self.test_loader = test_loader(dataset.test) if dataset.test else None

        self._num_classes = dataset.num_classes
        self._num_source_domains = len(cfg.DATASET.SOURCE_DOMAINS)
        self._lab2cname = dataset.lab2cname
        if cfg.VERBOSE:
            self.show_dataset_summary(cfg)

    @property
    def num_classes(self) -> int:
        return self._num_classes

    @property
    def num_source_domains(self) -> int:
        return self._num_source_domains

    @property
    def lab2cname(self) -> dict[int, str]:
        return self._lab2cname

    def show_dataset_summary(self, cfg: CfgNode) -> None:
        rows = [["Dataset", cfg.DATASET.NAME]]
        if cfg.DATASET.SOURCE_DOMAINS:
            rows.append(["Source", cfg.DATASET.SOURCE_DOMAINS])
        if cfg.DATASET.TARGET_DOMAINS:
            rows.append(["Target", cfg.DATASET.TARGET_DOMAINS])
        rows.append(["# classes", f"{self.num_classes:,}"])
        for split in ("train_x", "train_u", "val", "test"):
            if items := getattr(self.dataset, split):
                rows.append([f"# {split}", f"{len(items):,}"])
        print(tabulate(rows))


class DatasetWrapper(Dataset):
    """A list of Datum as a torch data set.

    An item is a dictionary: `img` (transformed image), `label`, `domain`, `impath`, `index` (position in the list).
    With a list of transforms, `img` comes from the first, `img2` from the second, and so on. With
    `DATALOADER.K_TRANSFORMS` > 1 each is, in training, a list of that many draws. `DATALOADER.RETURN_IMG0` adds
    `img0`, the image squashed to `INPUT.SIZE` without augmentation. Without a transform there is no `img`.
    """

    def __init__(
        self, cfg: CfgNode, data_source: list[Datum], transform: Transform = None, is_train: bool = False
    ) -> None:
        self.cfg = cfg
        self.data_source = data_source
        self.transform = transform
        self.is_train = is_train
        self.k_tfm = cfg.DATALOADER.K_TRANSFORMS if is_train else 1
        self.return_img0 = cfg.DATALOADER.RETURN_IMG0
        if self.k_tfm > 1 and transform is None:
            raise ValueError(f"Cannot augment the image {self.k_tfm} times without a transform")

        plain = [T.Resize(tuple(cfg.INPUT.SIZE), INTERPOLATION_MODES[cfg.INPUT.INTERPOLATION]), T.ToTensor()]
        if "normalize" in cfg.INPUT.TRANSFORMS:
            plain.append(T.Normalize(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD))
        self.to_tensor = T.Compose(plain)

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, idx: int) -> dict:
        item = self.data_source[idx]
        output = {"label": item.label, "domain": item.domain, "impath": item.impath, "index": idx}
        image = read_image(item.impath)
        if isinstance(self.transform, (list, tuple)):
            for i, transform in enumerate(self.transform, start=1):
                output["img" if i == 1 else f"img{i}"] = self._transform_image(transform, image)
        elif self.transform is not None:
            output["img"] = self._transform_image(self.transform, image)
        if self.return_img0:
            output["img0"] = self.to_tensor(image)
        return output

    def _transform_image(self, tfm: Callable, image: object) -> object:
        draws = [tfm(image) for _ in range(self.k_tfm)]
        return draws[0] if self.k_tfm == 1 else draws
