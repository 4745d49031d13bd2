"""What funboost's logging package may do in the worker: nothing.

The package looks for a top-level module of this name and, finding none, writes one into the project. Its
defaults replace `print`, copy the terminal to files and colour what is left; every one of them is off here.
"""

import logging
import os

AUTO_PATCH_PRINT = False
PRINT_WRTIE_FILE_NAME = None
SYS_STD_FILE_NAME = None
ROOT_LOGGER_FILENAME = None
ROOT_LOGGER_FILENAME_ERROR = None
DEFAULUT_USE_COLOR_HANDLER = False
DISPLAY_BACKGROUD_COLOR_IN_CONSOLE = False
DEFAULT_ADD_MULTIPROCESSING_SAFE_ROATING_FILE_HANDLER = False
AUTO_WRITE_ERROR_LEVEL_TO_SEPARATE_FILE = False
SHOW_PYCHARM_COLOR_SETINGS = False
SHOW_NB_LOG_LOGO = False
SHOW_IMPORT_NB_LOG_CONFIG_PATH = False
# The shipped default is somebody's chat robot: an alert logged there would leave this machine.
DING_TALK_TOKEN = None
LOG_LEVEL_FILTER = logging.WARNING
ROOT_LOGGER_LEVEL = logging.WARNING
# Without a folder it falls back to one in the root of the disk: it gets one that goes after the import.
LOG_PATH = os.environ["FRIENDO_FUNBOOST_LOGS"]
