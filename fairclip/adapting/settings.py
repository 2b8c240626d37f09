"""Settings from the number of images and the device, for those who do not want to choose any."""

from fairclip.backbones.openai import BUNDLED
from fairclip.views.loading import cores

# Images that a run looks at, over all epochs: a compromise of time and effect. On a CPU it is about what the
# development runs of the built-in data set take.
VISITS = {"cpu": 8_000, "cuda": 40_000, "mps": 20_000}
EPOCHS = (4, 30)  # at least, and at most
BATCH = 64


def choose_settings(images: int, device: str, backbone: str, epochs: int = 0) -> list[str]:
    """Config keys and values for so many images on this kind of device; ``epochs`` 0: chosen."""
    least, most = EPOCHS
    chosen = epochs or min(most, max(least, round(VISITS.get(device, VISITS["cpu"]) / images)))
    settings = {
        "OPTIM.MAX_EPOCH": chosen,
        "DATALOADER.TRAIN_X.BATCH_SIZE": min(BATCH, images),
        # Few images are read faster than workers start.
        "DATALOADER.NUM_WORKERS": 0 if images < 500 else min(4, cores()),
        "TRAIN.PRINT_FREQ": 20,
    }
    if backbone in BUNDLED:  # which ask for the settings of their file
        settings |= {"TRAINER.FAIR.CROP_INFERENCE": False}
    return [str(word) for pair in settings.items() for word in pair]


def config_file(backbone: str) -> str:
    """The settings of a real backbone do not depend on which."""
    return f"configs/trainers/FAIR/{backbone if backbone in BUNDLED else 'vit_b32'}.yaml"
