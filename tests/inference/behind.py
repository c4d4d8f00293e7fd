"""A teacher behind a server of the tests' own."""

from __future__ import annotations

from dataclasses import replace

from model_server import ModelServer
from models import V

from opd_diag.inference.served_teacher import ServedTeacher

TOP = 20


def served(teacher, top=TOP, **server):
    return ServedTeacher("big", "key", ModelServer(teacher, **server), top, stop_ids=teacher.stop_ids, at_once=3)


def told_its_size(of):
    """The same, of a server that tells how many ids its model has."""
    of.server.about = replace(of.server.about, vocab_size=V)
    return of
