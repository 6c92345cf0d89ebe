#!/usr/bin/env python3
"""Runs the steps of a Dockerfile in a clean Debian root, where there is no Docker.

    sudo scripts/check_images.py Dockerfile.cpu Dockerfile.gpu

What it does: makes a minimal Debian 12 with Python 3.11 (debootstrap) in the place of the
base image, runs every RUN, COPY, ENV, WORKDIR and USER of every stage in copies of it by
chroot, then, without any network, starts the CMD as the image's user with nothing but the
image's environment: it must refuse to start without a key, become healthy by the image's
own HEALTHCHECK, answer a spoken question (`ivas demo`) and end when it is told to.

What it cannot show: that Docker itself builds the file, that the tags it names exist, the
Python of the real base image (Debian's is older), layers and sizes in a registry, a card
in a container. Only the Dockerfiles of this checkout are understood, not every Dockerfile.

It needs root, for chroot; pip is given the PIP_* variables and /etc/pip.conf of this
machine. A wheel folder that they name must be shown too: --bind FOLDER.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
KEY = "a-key-for-this-check-only"
PATH = "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin"
HEALTHY_WITHIN_S = 90
ENDED_WITHIN_S = 15
WEIGHTS = (".pth", ".safetensors", ".gguf", ".onnx", "model.bin")
OF_THE_HOST = ("/etc/resolv.conf", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")
"""What makes the network of this machine usable in another root."""

# --- reading -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction: `RUN`, and what follows it with its lines joined."""

    word: str
    rest: str


@dataclass(frozen=True, slots=True)
class Stage:
    """From one FROM to the next."""

    base: str
    name: str
    steps: tuple[Step, ...]


def read_steps(text: str) -> Iterator[Step]:
    """The instructions of a Dockerfile, in order."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in re.sub(r"\\\n", "", "\n".join(lines)).splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield Step(word.upper(), re.sub(r"\s{2,}", " ", rest).strip())


def read_stages(text: str) -> list[Stage]:
    """The stages; variables in their base images are replaced by the defaults above them."""
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for step in read_steps(text):
        if step.word == "FROM":
            base, _, name = replaced(step.rest, arguments).partition(" AS ")
            stages.append(Stage(base, name or "last", ()))
        elif not stages:
            name, _, value = step.rest.partition("=")
            arguments[name] = value
        else:
            stages[-1] = replace(stages[-1], steps=(*stages[-1].steps, step))
    return stages


def replaced(text: str, variables: Mapping[str, str]) -> str:
    """$NAME and ${NAME} become their values, unknown ones nothing, as Docker has it."""
    return re.sub(r"\$\{?(\w+)\}?", lambda found: variables.get(found[1], ""), text)


def ignored(path: str, patterns: Iterable[str]) -> bool:
    """Whether .dockerignore leaves a path of the checkout out: the last pattern that fits wins."""
    left_out = False
    parts = path.split("/")
    for pattern in patterns:
        regex = re.escape(pattern.lstrip("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if any(re.fullmatch(regex, "/".join(parts[:count])) for count in range(1, len(parts) + 1)):
            left_out = not pattern.startswith("!")
    return left_out


# --- building ------------------------------------------------------------------------


@dataclass(slots=True)
class Image:
    """A root directory and what its Dockerfile says about running it."""

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    user: str = "0:0"
    workdir: str = "/"
    command: list[str] = field(default_factory=list)
    health: str = ""
    stop_signal: str = "SIGTERM"

    def process(
        self, command: Sequence[str], *, extra: Mapping[str, str], binds: Sequence[str] = ()
    ) -> list[str]:
        """The command line that runs `command` in this root, as its user, as process 1.

        Mounts live in a namespace of their own and end with it.
        """
        environment = {"HOME": self._home(), **self.environment, **extra}
        script = ['mount -t proc proc "$0/proc"', 'mount --rbind /dev "$0/dev"']
        for bind in binds:
            script.append(f'mkdir -p "$0{bind}" && mount --bind {bind} "$0{bind}"')
        in_root = f"cd {shlex.quote(self.workdir)} && exec {shlex.join(command)}"
        script.append(
            f'exec chroot --userspec={self.user} "$0" /usr/bin/env -i '
            + shlex.join([*(f"{name}={value}" for name, value in environment.items())])
            + f" /bin/sh -c {shlex.quote(in_root)}"
        )
        return [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
            *("sh", "-ec", "\n".join(script), str(self.root)),
        ]

    def _home(self) -> str:
        for line in (self.root / "etc/passwd").read_text().splitlines():
            _, _, uid, _, _, home, _ = line.split(":")
            if uid == self.user.partition(":")[0]:
                return home
        return "/"


def make_base(root: Path) -> None:
    """Debian 12 with what the official Python images on it have."""
    packages = "ca-certificates,netbase,python3,python3-venv,tzdata"
    run(["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(root)])
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    for path in map(Path, OF_THE_HOST):
        if path.exists():
            shutil.copyfile(path, root / path.relative_to("/"))


def build(dockerfile: Path, base: Path, work: Path, binds: Sequence[str]) -> Image:
    """Run every step of every stage; the image of the last one."""
    images: dict[str, Image] = {}
    image = Image(base)
    for stage in read_stages(dockerfile.read_text()):
        say(f"FROM {stage.base} AS {stage.name}")
        before = images.get(stage.base, Image(base))
        image = replace(
            before, root=work / stage.name, environment=dict(before.environment), command=[]
        )
        run(["cp", "-a", "--reflink=auto", str(before.root), str(image.root)])
        for step in stage.steps:
            start = time.monotonic()
            take(step, image, images, binds)
            say(f"  {time.monotonic() - start:5.1f} s  {step.word} {step.rest}")
        images[stage.name] = image
    for name, spent in images.items():
        if spent is not image:
            shutil.rmtree(work / name)
    return image


def take(step: Step, image: Image, images: Mapping[str, Image], binds: Sequence[str]) -> None:
    """One step. Raises SystemExit if it fails or is not understood."""
    match step.word:
        case "RUN":
            given = os.environ.items()  # noqa: TID251 (what pip itself would read here)
            pip = {name: value for name, value in given if name.startswith("PIP_")}
            run(image.process(["/bin/sh", "-c", step.rest], extra=pip, binds=binds))
        case "COPY":
            copy(step.rest, image, images)
        case "ENV":
            for pair in shlex.split(step.rest):
                name, _, value = pair.partition("=")
                image.environment[name] = replaced(value, image.environment)
        case "WORKDIR":
            image.workdir = step.rest
            (image.root / step.rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        case "USER":
            image.user = step.rest
        case "CMD":
            image.command = json.loads(step.rest)
        case "HEALTHCHECK":
            image.health = step.rest.partition("CMD ")[2]
        case "STOPSIGNAL":
            image.stop_signal = step.rest
        case "LABEL" | "VOLUME" | "EXPOSE":
            pass
        case other:
            raise SystemExit(f"check_images does not know {other}; teach it, or write it otherwise")


def copy(arguments: str, image: Image, images: Mapping[str, Image]) -> None:
    words = shlex.split(arguments)
    stage = words.pop(0).removeprefix("--from=") if words[0].startswith("--") else None
    *sources, to = words
    target = image.root / os.path.join(image.workdir, to).lstrip("/")
    if stage is not None:
        made = images[stage].root / sources[0].lstrip("/")
        shutil.copytree(made, target, symlinks=True, dirs_exist_ok=True)
        return
    for path in context(CHECKOUT):
        relative = path.relative_to(CHECKOUT)
        for source in map(Path, sources):
            if source not in (relative, *relative.parents):
                continue
            into = to.endswith(("/", ".")) and not (CHECKOUT / source).is_dir()
            place = target / relative.name if into else target / relative.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, place)
            os.chown(place, 0, 0)


def context(checkout: Path) -> Iterator[Path]:
    """The files of the checkout that .dockerignore lets Docker see."""
    lines = (checkout / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    wanted = tuple(pattern[1:] for pattern in patterns if pattern.startswith("!"))
    for folder, folders, files in os.walk(checkout):
        where = Path(folder).relative_to(checkout)
        for name in list(folders):
            inside = str(where / name)
            if ignored(inside, patterns) and not any(p.startswith(f"{inside}/") for p in wanted):
                folders.remove(name)
        shown = (name for name in files if not ignored(str(where / name), patterns))
        yield from (Path(folder) / name for name in shown)


# --- trying --------------------------------------------------------------------------


def leave_network() -> None:
    """From here on this process and its children have a loopback and nothing else."""
    clone_newnet, get_flags, set_flags, up = 0x40000000, 0x8913, 0x8914, 1
    if ctypes.CDLL(None, use_errno=True).unshare(clone_newnet) != 0:
        raise OSError(ctypes.get_errno(), "no network namespace of one's own")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack("16xh14x", fcntl.ioctl(probe, get_flags, request))
        fcntl.ioctl(probe, set_flags, struct.pack("16sh14x", b"lo", flags | up))


def attempt(image: Image, commands: Sequence[str]) -> list[str]:
    """Run the image as Docker would; what was wrong with it, one sentence each."""
    wrong: list[str] = []
    key, extra = {"IVAS_SERVER__API_KEY": KEY}, {}
    if image.environment.get("IVAS_ENV") == "production" and not Path("/dev/nvidia0").exists():
        wrong += refused(image, key, "NVIDIA", "in production without a card")
        extra = {"IVAS_ENV": "development"}
    wrong += refused(image, extra, "API_KEY", "without a key")
    extra |= key
    wrong += rights(image)
    wrong += [f"{path} has no business in an image" for path in weights(image.root)]

    start = time.monotonic()
    server = subprocess.Popen(image.process(image.command, extra=extra))
    try:
        while (code := healthy(image)) != 0 and server.poll() is None:
            if time.monotonic() - start > HEALTHY_WITHIN_S:
                break
        if code != 0:
            return [*wrong, f"the server did not become healthy in {HEALTHY_WITHIN_S} s"]
        say(f"  healthy after {time.monotonic() - start:.1f} s, as user {image.user}")
        question = ["ivas", "demo", "--url", "http://127.0.0.1:8000", "--key", KEY, "--json"]
        answer = subprocess.run(
            image.process(question, extra={}), capture_output=True, text=True, timeout=120
        )
        say(f"  ivas demo: {answer.stdout.strip()[:300] or answer.stderr.strip()}")
        if answer.returncode != 0:
            wrong.append("the spoken question was not answered")
        for command in commands:
            say(f"  {command}")
            done = subprocess.run(image.process(["/bin/sh", "-c", command], extra=extra))
            wrong += [f"it ended with {done.returncode}: {command}"] if done.returncode else []
        wrong += ended(server, image)
        if healthy(image) == 0:
            wrong.append("the health check passes without a server")
    finally:
        server.kill()
        server.wait()
    return wrong


def refused(image: Image, extra: Mapping[str, str], said: str, how: str) -> list[str]:
    """It must not start like this, and say why."""
    try:
        done = subprocess.run(
            image.process(image.command, extra=extra), capture_output=True, text=True, timeout=60
        )
    except subprocess.TimeoutExpired:
        return [f"{how} it starts"]
    reason = done.stderr.strip()
    say(f"  {how} it ends with {done.returncode}: {reason}")
    good = done.returncode != 0 and said in reason and "Traceback" not in reason
    return [] if good else [f"{how} it does not refuse with a sentence about {said}"]


def rights(image: Image) -> list[str]:
    """Who it runs as, and where it may write: to its volume, not to its program."""
    script = "id -u; for to in /data /app /opt/ivas; do test -w $to && echo $to; done"
    done = subprocess.run(
        image.process(["/bin/sh", "-c", script], extra={}), capture_output=True, text=True
    )
    expected = ["1000", "/data"]
    return [] if done.stdout.split() == expected else [f"rights: {done.stdout}{done.stderr}"]


def healthy(image: Image) -> int:
    """What the image's own health check ends with; 0 is healthy."""
    command = image.process(["/bin/sh", "-c", image.health], extra={})
    return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode


def ended(server: subprocess.Popen[bytes], image: Image) -> list[str]:
    """It ends by itself when it is told to, although it is process 1."""
    child = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()[0]
    start = time.monotonic()
    os.kill(int(child), signal.Signals[image.stop_signal])
    try:
        code = server.wait(ENDED_WITHIN_S)
    except subprocess.TimeoutExpired:
        return [f"it goes on for {ENDED_WITHIN_S} s after {image.stop_signal}"]
    say(f"  ended {time.monotonic() - start:.1f} s after {image.stop_signal}, with {code}")
    return []


def weights(root: Path) -> Iterator[Path]:
    """Models that came in beside the packages' own, and anything in the volume."""
    yield from (path.relative_to(root) for path in root.glob("data/*"))
    for path in root.rglob("*"):
        inside = path.relative_to(root)
        if path.name.endswith(WEIGHTS) and not inside.is_relative_to("opt/ivas/lib"):
            yield inside


# --- small parts ---------------------------------------------------------------------


say = partial(print, flush=True)


def run(command: Sequence[str]) -> None:
    """Raises SystemExit with the end of what it printed."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{done.stdout[-3000:]}\nfailed with {done.returncode}: {command[-1]}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dockerfile", nargs="+", type=Path)
    parser.add_argument("--bind", action="append", default=[], help="a folder the steps may see")
    parser.add_argument(
        "--also", action="append", default=[], help="a command to run in each image beside it"
    )
    asked = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        say("check_images needs root and debootstrap; where there is Docker, use docker build")
        return 2
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ivas-images-") as folder:
        work = Path(folder)
        say("Making a Debian 12 in the place of the base image ...")
        make_base(work / "base")
        images = []
        for dockerfile in asked.dockerfile:
            say(f"{dockerfile}: its steps, in a chroot")
            (work / dockerfile.name).mkdir()
            images.append(build(dockerfile, work / "base", work / dockerfile.name, asked.bind))
        leave_network()
        for dockerfile, image in zip(asked.dockerfile, images, strict=True):
            size = subprocess.run(["du", "-sm", image.root], capture_output=True, text=True).stdout
            say(f"{dockerfile}: running it, without a network ({size.split()[0]} MB unpacked)")
            wrong += [f"{dockerfile}: {sentence}" for sentence in attempt(image, asked.also)]
    for sentence in wrong:
        say(f"WRONG: {sentence}")
    say("The steps work. That Docker builds them was not tried." if not wrong else "It does not.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
