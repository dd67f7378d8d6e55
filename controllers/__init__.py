from . import download, monitoring
