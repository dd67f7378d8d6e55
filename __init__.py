from . import models
from .service.server import post_load
