"""Open the storage of an Optuna study: a journal file or a database, both with a heartbeat."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from competition.search.journal import Journal
from marsls_keras.errors import InputError

logger = logging.getLogger(__name__)

REASON = "reason"
"""Name of the attribute that holds why a trial failed."""

HEARTBEAT = 20
"""Seconds between the heartbeats of a trial in a database; after three missed ones its worker counts as dead."""

_TRIES = 5

Storage = Journal | RDBStorage


def open_storage(where: str) -> Storage:
    """Open a storage: a database if its name contains ://, else a journal file.

    Both have Optuna's heartbeat: a worker calls `record_heartbeat` for its running trials, and
    `optuna.storages.fail_stale_trials` records those of dead workers as failed.

    Args:
        where: Path of a journal, or a URL in the form of SQLAlchemy, such as postgresql://user:password@host/name or
            sqlite:///search.db.

    Raises:
        InputError: If it cannot be used.

    Example:
        >>> optuna.create_study(storage=open_storage("journal.log"), study_name="unet").study_name
        'unet'
    """

    def given_up(study: optuna.Study, trial: FrozenTrial) -> None:
        logger.info(f"Trial {trial.number} is given up: its worker is gone.")

    if "://" not in where:
        return Journal(Path(where), given_up)
    if where.startswith("redis"):
        raise InputError(
            "--storage redis://…: Redis has no heartbeat, so dead workers would not be noticed. Use a journal or postgresql://…."
        )
    return _connect(where, given_up)


def reason_of(trial: FrozenTrial) -> str:
    """Return why a trial failed.

    Example:
        >>> reason_of(optuna.trial.create_trial(value=0.5))
        'its worker ended without a word'
    """
    return trial.user_attrs.get(REASON, "its worker ended without a word")


def _connect(url: str, on_stale: Callable[[optuna.Study, FrozenTrial], None]) -> RDBStorage:
    """Open a database storage, with retries while another worker creates the same tables."""
    from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, OperationalError, ProgrammingError

    scheme, colon, rest = url.partition("://")
    shown = f"{scheme}{colon}{rest.rpartition('@')[2]}"  # without a password
    if scheme in ("postgresql", "postgres"):
        url = f"postgresql+psycopg://{rest}"  # SQLAlchemy would choose psycopg2, but the extra installs psycopg 3
    for left in reversed(range(_TRIES)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return RDBStorage(
                    url,
                    heartbeat_interval=HEARTBEAT,
                    grace_period=3 * HEARTBEAT,
                    heartbeat_stale_trial_callback=on_stale,
                )
        except (IntegrityError, ProgrammingError, OperationalError) as error:
            if left:
                time.sleep(0.3)
                continue
            raise InputError(f"--storage {shown} cannot be used: {str(error.orig or error).strip()}") from None
        except ImportError:
            hint = (
                'pip install "marsls-keras[postgres]" brings it.'
                if url.startswith("postgresql")
                else "Install it with pip."
            )
            raise InputError(f"--storage {shown}: the driver of this database is not installed. {hint}") from None
        except (ArgumentError, NoSuchModuleError, ValueError) as error:
            raise InputError(
                f"--storage {shown}: expected a file, or a URL such as postgresql://user@host/name. {error}"
            ) from None
    raise AssertionError("unreachable")
