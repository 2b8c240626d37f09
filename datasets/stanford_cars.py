"""Stanford Cars: 196 models by make and year (Krause et al., 2013), with CoOp's folder layout and split."""

from dassl.data.datasets import DATASET_REGISTRY

from .common import SplitDataset, data_root

FOLDER = "stanford_cars"
SPLIT = "split_zhou_StanfordCars.json"
LAYOUT = """
Stanford Cars is expected as
  {folder}/
    cars_train/00001.jpg ... 08144.jpg
    cars_test/00001.jpg ... 08041.jpg
    {split}   (6,509 train, 1,635 val, 8,041 test)
How to get it:
  - images: the original site is gone. The Kaggle data set rickyyyyyyy/torchvision-stanford-cars has this layout.
    Other copies nest the folders (cars_train/cars_train/): move the images one level up.
  - split: CoOp's file, with  gdown 1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT -O {split}
    or in a browser  https://drive.google.com/file/d/1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT
If the data is elsewhere, name the parent of {name}/: DATA=/path for the scripts, --root /path for train.py."""


@DATASET_REGISTRY.register()
class StanfordCars(SplitDataset):
    """Class names carry the year first ("2012 Audi TTS Coupe"), as in CoOp's split."""

    dataset_dir = FOLDER

    def __init__(self, cfg) -> None:
        folder = data_root(cfg) / FOLDER
        # The paths in this split start with cars_train/ or cars_test/, so they are relative to the folder itself.
        super().__init__(cfg, folder / SPLIT, folder, LAYOUT.format(folder=folder, split=SPLIT, name=FOLDER))
