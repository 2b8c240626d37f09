"""EuroSAT: 10 kinds of land use seen from a satellite (Helber et al., 2019); the RGB version."""

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from fairclip.data.benchmark import Benchmark
from fairclip.data.classes import class_folders, class_list
from fairclip.data.copies import Copy
from fairclip.data.sources import Source


@DATASET_REGISTRY.register()
class EuroSAT(Benchmark):
    """There is no official split. Class names are CoOp's: "Annual Crop Land" for the folder AnnualCrop."""

    dataset_dir = "eurosat"
    other_names = ("2750", "eurosat_rgb", "eurosat-rgb", "eurosat-dataset", "eurosat_splits")
    split_file = "split_zhou_EuroSAT.json"
    drive_id = "1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o"
    rule = "all"
    counts = {"zhou": (13500, 5400, 8100)}
    sources = (
        Source(
            url="https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
            path="2750",
            size=94_280_567,
            checksum="c8fa014336c82ac7804f0398fcb19387",
            inside=".",
        ),
    )
    how_to_get = """
EuroSAT is expected as
  {folder}/
    2750/AnnualCrop/AnnualCrop_1.jpg ...   (10 classes, 27,000 images)
    split_zhou_EuroSAT.json                (13,500 train, 5,400 val, 8,100 test)
Also read: EuroSAT_RGB/ (Zenodo) or EuroSAT/ (Kaggle) for 2750/, train/<class>/ and test/<class>/ folders.
How to get it: {fair} data fetch eurosat, or by hand
  - images: EuroSAT.zip in https://huggingface.co/datasets/torchgeo/eurosat
    (94,280,567 bytes, MD5 c8fa014336c82ac7804f0398fcb19387), unpacks to 2750/;
    or EuroSAT_RGB.zip in https://zenodo.org/records/7711810, another archive of the same images
  - split: CoOp's file, fetched if it is missing, or with
      gdown 1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o -O split_zhou_EuroSAT.json
    or in a browser  https://drive.google.com/file/d/1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o"""

    @classmethod
    def layouts(cls, folder: Path) -> list[Copy]:
        there = class_folders(folder, class_list(cls.dataset_dir))
        return [Copy(f"class folders in {folder.name}/", folder, (("", folder),))] if there else []
