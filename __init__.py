from . import controllers, models
from .service.server import post_load
