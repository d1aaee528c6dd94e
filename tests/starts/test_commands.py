"""Commands other than launch and resume, ended by a signal or a closed pipe at any moment."""

import itertools

import pytest

from tests.starts.commands import COMMANDS, ENDED_BY, Scene, try_closed_pipe, try_signal


@pytest.mark.parametrize(
    "name", [name if name == "prepare" else pytest.param(name, marks=pytest.mark.long) for name in COMMANDS]
)
def test_a_command_that_is_stopped_ends_quietly_and_leaves_nothing_half_made(stage, name):
    scene = Scene(stage, COMMANDS[name])
    with scene.training():
        before = set(scene.place.names())
        duration = scene.duration()
        made = set(scene.place.names()) - before
        shares = (0.6,) if name == "prepare" else (0.2, 0.4, 0.6, 0.8)
        for share, signum in itertools.product(shares, ENDED_BY):
            try_signal(scene, COMMANDS[name], made, share * duration, signum)
        try_closed_pipe(scene)
    scene.place.remove()
