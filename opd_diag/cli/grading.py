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
        There is no such module or function.
    """
    module_name, colon, function_name = name.partition(":")
    if not (colon and module_name and function_name):
        raise InputError(f"Expected MODULE:FUNCTION, as my_graders:math, found '{name}'.")
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(
            f"Module '{module_name}' cannot be imported: {error}. Name one that is installed or lies in the working "
            "directory."
        ) from error
    finally:
        sys.path.remove(os.getcwd())
    function = getattr(module, function_name, None)
    if not callable(function):
        raise InputError(f"{module_name} has no function '{function_name}'. Correct the name.")
    named: Callable[..., Any] = function
    return named
