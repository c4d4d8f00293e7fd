"""A user's own Python function, named on the command line."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from opd_diag.errors import InputError


def function_named(name: str) -> Callable[..., Any]:
    """Import ``module:function``, of a module that is installed or lies in the working directory.

    Raises
    ------
    InputError
        There is no such module or function, or the module fails as it is imported.
    """
    module_name, colon, function_name = name.partition(":")
    if not (colon and module_name and function_name):
        raise InputError(f"Expected MODULE:FUNCTION, as my_graders:math, found '{name}'.")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(
            f"Module '{module_name}' cannot be imported: {error}. Name one that is installed or lies in the working "
            "directory."
        ) from error
    except Exception as error:  # a user's code may raise anything
        raise InputError(
            f"Module '{module_name}' cannot be imported: {type(error).__name__}: {error}. Correct it."
        ) from error
    finally:
        if here in sys.path:  # the module may change it
            sys.path.remove(here)
    function = getattr(module, function_name, None)
    if not callable(function):
        raise InputError(f"{module_name} has no function '{function_name}'. Correct the name.")
    named: Callable[..., Any] = function
    return named
