"""Draws the example clips: two figures who hug, kick, push or shake hands. Nobody was filmed.

    python examples/make_clips.py examples          the two clips that are kept here
    python examples/make_clips.py OUT --many 10     ten variants of each action, other people, ground and pace

Each figure is a skeleton of eleven joints posed by key frames, drawn as shaded limbs on a drawn pavement.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT, FPS, SECONDS = 384, 272, 25, 4.0
SUPER = 3  # drawn this much larger, then reduced: smooth edges
Point = tuple[float, float]
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Pose:
    """Angles in degrees; 0 hangs straight down, positive swings forward. `x` is in body heights from the middle."""

    x: float = 0.45
    lean: float = 0.0
    near_shoulder: float = 0.0
    near_elbow: float = 10.0
    far_shoulder: float = 0.0
    far_elbow: float = 10.0
    near_hip: float = 3.0
    near_knee: float = -4.0
    far_hip: float = -3.0
    far_knee: float = -4.0
    rise: float = 0.0

    def towards(self, other: Pose, share: float) -> Pose:
        """This pose moved a share (0-1) of the way to another, starting and ending gently."""
        eased = (1 - math.cos(math.pi * share)) / 2
        return Pose(*(a + (b - a) * eased for a, b in zip(self.values(), other.values(), strict=True)))

    def values(self) -> list[float]:
        """All settings in order."""
        return [getattr(self, field.name) for field in fields(self)]


STAND = Pose()
Script = list[tuple[float, Pose]]  # (moment as a share of the clip, pose)


def scripts(action: str) -> tuple[Script, Script]:
    """Key poses of the left and of the right figure; the right one is drawn mirrored, so both mean 'towards each other'."""
    wide = replace(STAND, near_hip=22, near_knee=-12, far_hip=-20, far_knee=-8)
    if action == "hug":
        near = replace(wide, x=0.27, near_shoulder=60, near_elbow=25, far_shoulder=55, far_elbow=25, lean=4)
        held = replace(STAND, x=0.075, near_shoulder=68, near_elbow=76, far_shoulder=58, far_elbow=88, lean=7)
        script = [
            (0.0, STAND),
            (0.15, STAND),
            (0.3, near),
            (0.4, held),
            (0.66, held),
            (0.76, near),
            (0.9, STAND),
            (1.0, STAND),
        ]
        return script, script
    if action == "handshake":
        out = replace(wide, x=0.36, near_shoulder=35, near_elbow=30, lean=3)
        up = replace(out, x=0.33, near_shoulder=52, near_elbow=26, near_hip=14, far_hip=-12)
        down = replace(up, near_shoulder=40, near_elbow=24)
        script = [
            (0.0, STAND),
            (0.15, STAND),
            (0.32, out),
            (0.4, up),
            (0.48, down),
            (0.55, up),
            (0.62, down),
            (0.72, out),
        ]
        script += [(0.88, STAND), (1.0, STAND)]
        return script, script
    hit = replace(STAND, x=0.5, lean=-16, near_shoulder=30, near_elbow=50, far_shoulder=45, far_elbow=40)
    stagger = replace(hit, x=0.66, lean=-24, near_hip=30, near_knee=-30, far_hip=-24, far_knee=-12)
    if action == "kick":
        step = replace(wide, x=0.4, lean=-4, near_shoulder=-25, far_shoulder=20)
        chamber = replace(
            STAND, x=0.36, lean=-12, near_hip=70, near_knee=-80, near_shoulder=-35, far_shoulder=30, far_hip=-6
        )
        strike = replace(chamber, lean=-26, near_hip=94, near_knee=-4, x=0.33)
        kicker = [
            (0.0, STAND),
            (0.18, STAND),
            (0.32, step),
            (0.4, chamber),
            (0.48, strike),
            (0.54, strike),
            (0.62, chamber),
        ]
        kicker += [(0.72, step), (0.86, STAND), (1.0, STAND)]
        kicked = [
            (0.0, STAND),
            (0.44, STAND),
            (0.52, hit),
            (0.62, stagger),
            (0.78, replace(wide, x=0.6)),
            (1.0, replace(STAND, x=0.58)),
        ]
        return kicked, kicker
    step = replace(wide, x=0.3, near_shoulder=30, near_elbow=90, far_shoulder=34, far_elbow=88)
    shove = replace(
        wide, x=0.25, lean=18, near_shoulder=84, near_elbow=6, far_shoulder=88, far_elbow=4, near_hip=34, near_knee=-26
    )
    pusher = [
        (0.0, STAND),
        (0.2, STAND),
        (0.36, step),
        (0.45, shove),
        (0.55, shove),
        (0.68, step),
        (0.82, STAND),
        (1.0, STAND),
    ]
    pushed = [
        (0.0, STAND),
        (0.42, STAND),
        (0.5, hit),
        (0.6, stagger),
        (0.74, replace(wide, x=0.66)),
        (1.0, replace(STAND, x=0.64)),
    ]
    return pushed, pusher


ACTIONS = ("hug", "handshake", "kick", "push")


def pose_at(script: Script, moment: float) -> Pose:
    """The pose at a moment (share of the clip) between two key poses."""
    for (start, before), (end, after) in zip(script, script[1:], strict=False):
        if moment <= end:
            return before.towards(after, max(0.0, (moment - start) / (end - start)))
    return script[-1][1]


@dataclass(frozen=True)
class Person:
    """What a figure wears, and how tall it is in pixels."""

    skin: Colour
    hair: Colour
    shirt: Colour
    trousers: Colour
    shoes: Colour
    height: float


def draw_person(draw: ImageDraw.ImageDraw, person: Person, pose: Pose, ground: Point, side: int) -> None:
    """The figure with its feet near `ground`; `side` 1 looks right (drawn left), -1 looks left."""
    tall = person.height * SUPER

    def step(origin: Point, angle: float, length: float) -> Point:
        radians = math.radians(angle)
        return origin[0] + side * math.sin(radians) * length * tall, origin[1] + math.cos(radians) * length * tall

    hip = (
        ground[0] - side * pose.x * tall,
        ground[1] - (0.49 + pose.rise) * tall * math.cos(math.radians(pose.far_hip)),
    )
    neck = step(hip, 180 - pose.lean, 0.33)
    shoulder = step(hip, 180 - pose.lean, 0.30)
    head = step(hip, 180 - pose.lean * 0.8, 0.425)
    dark = shaded(person.trousers, 0.75)

    def leg(hip_angle: float, knee_angle: float, colour: Colour) -> None:
        knee = step(hip, hip_angle, 0.245)
        ankle = step(knee, hip_angle + knee_angle, 0.225)
        toe = step(ankle, hip_angle + knee_angle + 80, 0.07)
        limb(draw, hip, knee, 0.052 * tall, 0.042 * tall, colour)
        limb(draw, knee, ankle, 0.040 * tall, 0.030 * tall, colour)
        limb(draw, ankle, toe, 0.026 * tall, 0.020 * tall, person.shoes)

    def arm(shoulder_angle: float, elbow_angle: float, shade: float) -> None:
        elbow = step(shoulder, shoulder_angle + pose.lean, 0.165)
        wrist = step(elbow, shoulder_angle + elbow_angle + pose.lean, 0.145)
        half = ((shoulder[0] + elbow[0]) / 2, (shoulder[1] + elbow[1]) / 2)
        limb(draw, half, elbow, 0.024 * tall, 0.022 * tall, shaded(person.skin, shade))
        limb(draw, elbow, wrist, 0.022 * tall, 0.018 * tall, shaded(person.skin, shade))
        limb(
            draw,
            wrist,
            step(wrist, shoulder_angle + elbow_angle + pose.lean, 0.02),
            0.022 * tall,
            0.02 * tall,
            shaded(person.skin, shade),
        )
        limb(draw, shoulder, half, 0.036 * tall, 0.031 * tall, shaded(person.shirt, shade))

    arm(pose.far_shoulder, pose.far_elbow, 0.72)
    leg(pose.far_hip, pose.far_knee, dark)
    leg(pose.near_hip, pose.near_knee, person.trousers)
    limb(draw, neck, head, 0.028 * tall, 0.028 * tall, shaded(person.skin, 0.9))
    limb(draw, hip, shoulder, 0.062 * tall, 0.072 * tall, person.shirt)
    limb(
        draw,
        step(hip, 180 - pose.lean, 0.02),
        step(hip, 180 - pose.lean, 0.24),
        0.02 * tall,
        0.03 * tall,
        shaded(person.shirt, 1.12),
    )
    radius = 0.062 * tall
    back = (head[0] - side * 0.014 * tall, head[1] - 0.016 * tall)
    disc(draw, head, radius, person.skin)
    draw.pieslice(box(back, radius * 1.05), 150 if side > 0 else 180, 360 if side > 0 else 390, fill=person.hair)
    disc(draw, (back[0] - side * 0.02 * tall, back[1]), radius * 0.8, person.hair)
    arm(pose.near_shoulder, pose.near_elbow, 1.0)


def limb(
    draw: ImageDraw.ImageDraw, start: Point, end: Point, start_radius: float, end_radius: float, colour: Colour
) -> None:
    """A rounded limb that narrows from one joint to the other, darker along its lower edge."""
    along = math.atan2(end[1] - start[1], end[0] - start[0])
    across = (math.sin(along), -math.cos(along))
    for shade, share in ((0.8, 1.0), (1.0, 0.72)):
        tone = shaded(colour, shade)
        first, second = start_radius * share, end_radius * share
        draw.polygon(
            [
                (start[0] + across[0] * first, start[1] + across[1] * first),
                (end[0] + across[0] * second, end[1] + across[1] * second),
                (end[0] - across[0] * second, end[1] - across[1] * second),
                (start[0] - across[0] * first, start[1] - across[1] * first),
            ],
            fill=tone,
        )
        disc(draw, start, first, tone)
        disc(draw, end, second, tone)


def disc(draw: ImageDraw.ImageDraw, centre: Point, radius: float, colour: Colour) -> None:
    draw.ellipse(box(centre, radius), fill=colour)


def box(centre: Point, radius: float) -> tuple[float, float, float, float]:
    return centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius


def shaded(colour: Colour, share: float) -> Colour:
    red, green, blue = (min(255, round(value * share)) for value in colour)
    return red, green, blue


def pavement(rng: np.random.Generator) -> Image.Image:
    """Grey ground with grain, stains and a few cracks."""
    size = (WIDTH * SUPER, HEIGHT * SUPER)
    base = np.array(rng.choice([(128, 124, 116), (120, 118, 114), (136, 130, 120)]), dtype=float)
    coarse = Image.fromarray(rng.integers(0, 255, (12, 18), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = rng.normal(0, 7, (size[1], size[0], 1))
    ground = base + (np.asarray(coarse, dtype=float)[..., None] - 128) * 0.08 + grain
    ground *= np.linspace(0.93, 1.06, size[1])[:, None, None]
    image = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(2, 5)):
        start, end = rng.uniform(0, size[1], 2)
        points = [(x, start + (end - start) * x / size[0] + rng.normal(0, 6)) for x in np.linspace(0, size[0], 24)]
        draw.line(points, fill=shaded((88, 84, 78), float(rng.uniform(0.8, 1.2))), width=int(rng.integers(2, 5)))
    return image.filter(ImageFilter.GaussianBlur(1.2))


def clip_frames(action: str, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """All frames (H, W, 3) of one performance; the generator chooses people, ground and pace."""
    ground = pavement(rng)
    skins = [(224, 180, 148), (196, 146, 112), (148, 102, 74), (236, 196, 168)]
    shirts = [(232, 228, 220), (236, 214, 160), (60, 84, 140), (150, 52, 48), (52, 52, 58), (110, 142, 96)]
    trousers = [(88, 104, 140), (116, 104, 84), (56, 60, 72), (146, 134, 110)]
    chosen = rng.permutation(len(shirts))
    people = [
        Person(
            skin=skins[rng.integers(len(skins))],
            hair=shaded((44, 34, 28), float(rng.uniform(0.6, 1.6))),
            shirt=shirts[chosen[index]],
            trousers=trousers[rng.integers(len(trousers))],
            shoes=[(40, 38, 40), (210, 206, 200)][rng.integers(2)],
            height=float(rng.uniform(205, 225)),
        )
        for index in range(2)
    ]
    turned = bool(rng.integers(2))
    spread = float(rng.uniform(0.92, 1.08))
    floor = HEIGHT * float(rng.uniform(0.91, 0.94)) * SUPER
    left, right = scripts(action)
    num_frames = int(SECONDS * FPS)
    frames: list[NDArray[np.uint8]] = []
    for number in range(num_frames):
        moment = number / (num_frames - 1)
        image = ground.copy()
        poses = [pose_at(left, moment), pose_at(right, moment)]
        poses = [replace(pose, x=pose.x * (spread if pose.x > 0.2 else 1.0)) for pose in poses]
        sway = [1.2 * math.sin(2 * math.pi * (moment * 2 + index / 3)) for index in range(2)]
        middle = (WIDTH / 2 * SUPER, floor)
        shadow = Image.new("L", image.size, 0)
        for pose, side, person in zip(poses, (1, -1), people, strict=True):
            x = middle[0] - side * pose.x * person.height * SUPER
            reach = 0.22 * person.height * SUPER
            ImageDraw.Draw(shadow).ellipse((x - reach, floor - 16, x + reach * 1.2, floor + 22), fill=90)
        image.paste((40, 38, 36), mask=shadow.filter(ImageFilter.GaussianBlur(9)))
        draw = ImageDraw.Draw(image)
        for index in (0, 1):
            pose = replace(poses[index], lean=poses[index].lean + sway[index])
            draw_person(draw, people[index], pose, middle, 1 if index == 0 else -1)
        small = image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
        pixels = np.asarray(small, dtype=np.float32) + rng.normal(0, 2.5, (HEIGHT, WIDTH, 1))
        whole = np.clip(pixels[:, ::-1] if turned else pixels, 0, 255).astype(np.uint8)
        frames.append(np.ascontiguousarray(whole))
    return frames


def write(path: Path, frames: list[NDArray[np.uint8]]) -> None:
    """The frames as H.264 in MP4."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "27", "preset": "slow"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--many", type=int, default=0, help="this many variants of every action instead")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.many:
        for action, seed in (("hug", (8, 0)), ("kick", (4, 2))):  # variants 8 and 4 of --many
            write(options.out / f"{action}.mp4", clip_frames(action, np.random.default_rng(seed)))
    for action in ACTIONS if options.many else ():
        for variant in range(options.many):
            (options.out / action).mkdir(exist_ok=True)
            rng = np.random.default_rng([variant, ACTIONS.index(action)])
            write(options.out / action / f"{variant:03}.mp4", clip_frames(action, rng))


if __name__ == "__main__":
    main()
