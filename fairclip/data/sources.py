"""Where the images of a data set are on the web. The addresses themselves are facts in datasets/<name>.py.

Sizes and checksums there are those that torchvision 0.29 and TensorFlow Datasets 4.9 expect.
"""

from dataclasses import dataclass

DRIVE = "drive:"


@dataclass(frozen=True)
class Source:
    """One download.

    Args:
        url: where it is; "drive:<id>" for an archive on Google Drive.
        path: what it gives, below the data set's folder. It gets this name last, so if it is there, all of it is.
        size: bytes to download; 0: unknown.
        checksum: MD5 or SHA-256 of the download in hex; "": none is published.
        inside: for an archive, the folder in it whose content goes to the data set's folder; ".": the archive's own.
        inner: for an archive in an archive, its place in the outer one.
        needless: why the data set can do without it, if it can.
    """

    url: str
    path: str
    size: int = 0
    checksum: str = ""
    inside: str = ""
    inner: str = ""
    needless: str = ""

    @property
    def file(self) -> str:
        """The name of the downloaded file."""
        return f"{self.path}.zip" if self.url.startswith(DRIVE) else self.url.rpartition("/")[2]

    @property
    def page(self) -> str:
        """The address for a browser."""
        return self.url.replace(DRIVE, "https://drive.google.com/file/d/")
