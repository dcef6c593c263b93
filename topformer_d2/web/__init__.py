"""A page that runs an exported model in the visitor's browser."""

from .model import model_for_web
from .runtime import runtime_files
from .server import SiteServer
from .site import check_site_folder, write_site

__all__ = ["SiteServer", "check_site_folder", "model_for_web", "runtime_files", "write_site"]
