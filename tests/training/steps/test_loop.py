"""The loop: what is learned, what stays untouched, each setting's effect, and a run that goes on where it was cut off."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from fewframes.data.layouts import Sample
from fewframes.errors import ConfigError, MissingDependency
from fewframes.models.config import ModelConfig
from fewframes.models.files.networks import build_model
from fewframes.models.layers import Block
from fewframes.models.stam import STAM
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.config import RunConfig, TrainConfig
from fewframes.training.processes import ONE_THREAD_GFLOP, few_threads, start_processes
from fewframes.training.steps.loader import TokenExamples, VideoExamples, read_batches
from fewframes.training.steps.loop import Trainer, TrainingStep, fit
from fewframes.training.steps.training_set import TrainingSet, class_weights, solve, token_examples
from fewframes.video.view import ViewConfig

VIEW = ViewConfig(resize_px=36, crop_px=32)
QUICK = TrainConfig(epochs=1, min_steps=60)
ORDERED = ModelConfig(
    image_size=32, patch_size=8, width=24, depth=2, heads=3, num_frames=8, num_classes=2,
    temporal_width=32, temporal_depth=1, temporal_heads=4, motion_width=16, temporal_positions="waves",
)  # fmt: skip
PLAIN = replace(ORDERED, motion_width=0)


def rising_or_falling(num_videos: int, seed: int) -> tuple[Tensor, Tensor]:
    """Embeddings (B, 1, T, D) of videos that differ in the order of their frames alone, and which order it is."""
    generator = torch.Generator().manual_seed(seed)
    paths_BTD = torch.randn(num_videos, 1, 24, generator=generator) + torch.linspace(-1, 1, 8)[:, None] * torch.ones(24)
    paths_BTD = paths_BTD + 0.5 * torch.randn(num_videos, 8, 24, generator=generator)
    turned_BTD = paths_BTD.flip(1)
    return torch.cat([paths_BTD, turned_BTD])[:, None], torch.eye(2).repeat_interleave(num_videos, dim=0)


def fitted(config: ModelConfig, settings: TrainConfig = QUICK, **augment: Any) -> STAM:
    model = built(config)
    for _ in fit(model, *rising_or_falling(40, seed=1), RunConfig(train=settings, augment=AugmentConfig(**augment))):
        pass
    return model


def built(config: ModelConfig) -> STAM:
    torch.manual_seed(0)
    return build_model(config, VIEW)


def accuracy(model: STAM) -> float:
    embeddings_BVTD, targets_BK = rising_or_falling(100, seed=2)
    with torch.inference_mode():
        logits_BK = model.encode_video(embeddings_BVTD[:, 0]).logits
    return float((logits_BK.argmax(1) == targets_BK.argmax(1)).float().mean())


def same(first: STAM, second: STAM) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_order_of_frames_is_learned_and_a_mean_cannot() -> None:
    assert accuracy(fitted(ORDERED)) > 0.95
    mean = replace(ORDERED, temporal="mean", temporal_width=None, motion_width=0)
    assert accuracy(fitted(mean)) == 0.5  # as often right as wrong, exactly: both orders get the same answer


def test_the_read_out_of_moments_learns_it_too() -> None:
    config = replace(ORDERED, temporal="mean", temporal_width=None, motion_width=0, moment_head=True)
    assert accuracy(fitted(config)) > 0.95


def test_the_trained_head_counts_a_third_beside_a_solved_read_out() -> None:
    embeddings_BVTD, targets_BK = rising_or_falling(40, seed=1)
    model = built(replace(ORDERED, moment_head=True))
    solve(model, embeddings_BVTD, targets_BK, 0)
    training_set = TrainingSet(token_examples(model, embeddings_BVTD), targets_BK, ["x"] * 80)
    trainer = Trainer(model, training_set, RunConfig(train=QUICK), start_processes("cpu", QUICK))
    next(trainer.steps())
    assert model.moment_head is not None
    assert_close(trainer.trained().head.weight, trainer.learner.head.weight.detach() / 3)
    assert_close(trainer.trained().head.bias, trainer.learner.head.bias.detach() / 3)
    moment_head = trainer.trained().moment_head
    assert moment_head is not None
    assert torch.equal(moment_head.linear.weight, model.moment_head.linear.weight)


def test_same_seed_same_weights() -> None:
    first = fitted(ORDERED)
    assert same(first, fitted(ORDERED))
    for config, settings in ((ORDERED, replace(QUICK, seed=1)), (replace(ORDERED, token_dropout=0.5), QUICK)):
        assert not torch.equal(first.head.weight, fitted(config, settings).head.weight)


@pytest.mark.parametrize(
    "change",
    [
        {"label_smoothing": 0.0}, {"weight_decay": 0.5}, {"max_grad_norm": 0.01}, {"ema_decay": 0.9}, {"accumulate": 2},
        {"learning_rate": 2e-3}, {"warmup_share": 0.5}, {"batch_size": 16}, {"balance": "sampling"}, {"epochs": 50},
    ],
)  # fmt: skip
def test_each_setting_of_training_has_an_effect(change: dict[str, Any]) -> None:
    quick = replace(QUICK, min_steps=6)
    assert not same(fitted(PLAIN, quick), fitted(PLAIN, replace(quick, **change)))


def test_mixup_has_an_effect_and_still_learns() -> None:
    assert not same(fitted(PLAIN), fitted(PLAIN, mixup=0.5))
    assert accuracy(fitted(ORDERED, mixup=0.5)) > 0.95


def descended(settings: TrainConfig, teacher_BK: Tensor | None = None) -> tuple[STAM, TrainingStep]:
    """One step of plain descent, which unlike Adam's tells how large gradients are; and what it says of itself."""
    embeddings_BVTD, targets_BK = rising_or_falling(40, seed=1)
    model = built(PLAIN)
    training_set = TrainingSet(token_examples(model, embeddings_BVTD), targets_BK, ["x"] * 80, teacher_BK)
    settings = replace(settings, min_steps=1, warmup_share=0.0, max_grad_norm=1e9)
    trainer = Trainer(model, training_set, RunConfig(train=settings), start_processes("cpu", settings))
    trained = [weight for weight in trainer.learner.parameters() if weight.requires_grad]
    trainer.optimiser = torch.optim.SGD([{"params": trained, "peak": 1.0}])  # type: ignore[assignment]
    step = next(trainer.steps())
    return trainer.trained(), step


def test_accumulated_batches_are_one_step_of_the_whole() -> None:
    whole, _ = descended(replace(QUICK, batch_size=80))
    parts, _ = descended(replace(QUICK, batch_size=40, accumulate=2))
    moved = (whole.head.weight - built(PLAIN).head.weight).abs().max().item()
    assert moved > 0.01
    torch.testing.assert_close(parts.head.weight, whole.head.weight, rtol=0, atol=1e-3 * moved)


def test_a_teachers_loss_is_scaled_by_its_temperature_squared() -> None:
    embeddings_BVTD, targets_BK = rising_or_falling(40, seed=1)
    settings = replace(
        QUICK, batch_size=80, teacher="x", teacher_share=0.25, teacher_temperature=2.0, label_smoothing=0.0
    )
    _, step = descended(settings, targets_BK.flip(1))
    with torch.no_grad():
        logits_BK = built(PLAIN).encode_video(embeddings_BVTD[:, 0]).logits
    labels = F.cross_entropy(logits_BK, targets_BK)
    teacher = F.cross_entropy(logits_BK / 2, targets_BK.flip(1))
    assert step.loss == pytest.approx(float(0.75 * labels + 0.25 * 4 * teacher), rel=1e-4)


def test_steps_epochs_and_learning_rate() -> None:
    settings = TrainConfig(epochs=5, min_steps=1, batch_size=32, warmup_share=0.2, learning_rate=0.01)
    steps = list(fit(built(ORDERED), *rising_or_falling(40, seed=1), RunConfig(train=settings)))
    assert [step.number for step in steps] == list(range(1, 16))  # 80 videos are 3 batches an epoch
    assert steps[-1].epoch == 5
    rates = [step.learning_rate for step in steps]
    assert rates[:3] == pytest.approx([0.01 / 3, 0.02 / 3, 0.01])
    assert rates[-1] < 0.001
    assert all(0 <= step.accuracy <= 1 for step in steps)
    assert steps[-1].loss < steps[0].loss


def test_the_frame_encoder_is_not_touched() -> None:
    before, after = (model.frame_encoder.state_dict() for model in (built(ORDERED), fitted(ORDERED)))
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_rare_classes_weigh_more() -> None:
    targets_BK = torch.eye(2)[[0, 0, 0, 1]]
    weights_K = class_weights(targets_BK)
    assert weights_K.tolist() == pytest.approx([2 / 3, 2])  # each class counts as much, 1 on average over the videos
    model = built(PLAIN)
    logits_BK = torch.tensor([[0.0, 0.0]] * 4)
    assert model.loss(logits_BK, targets_BK, 0.0, weights_K).item() == pytest.approx(0.6931, abs=1e-4)


def test_a_teacher_is_followed() -> None:
    embeddings_BVTD, targets_BK = rising_or_falling(40, seed=1)
    model = built(PLAIN)
    turned_BK = targets_BK.flip(1)  # a teacher that is always wrong
    training_set = TrainingSet(token_examples(model, embeddings_BVTD), targets_BK, ["x"] * 80, turned_BK)
    run = RunConfig(train=replace(QUICK, teacher="x", teacher_share=1.0, teacher_temperature=2.0))
    trainer = Trainer(model, training_set, run, start_processes("cpu", run.train))
    losses = [step.loss for step in trainer.steps()]
    assert accuracy(trainer.trained()) < 0.2
    assert losses[-1] < losses[0]


def test_diverging_names_the_videos() -> None:
    embeddings_BVTD, targets_BK = rising_or_falling(2, seed=1)
    model = built(PLAIN)
    run = RunConfig(train=replace(QUICK, learning_rate=1e30))
    training_set = TrainingSet(token_examples(model, embeddings_BVTD), targets_BK, ["a.mp4", "b.mp4", "c.mp4", "d.mp4"])
    trainer = Trainer(model, training_set, run, start_processes("cpu", run.train))
    with pytest.raises(ConfigError, match=r"the loss is nan at step \d+ of 60 .* lower it, or look at .*[abcd]\.mp4, "):
        list(trainer.steps())


def test_a_step_waits_for_its_losses_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU each look at a number makes Python wait until all that was queued is done. Each is counted here."""
    embeddings_BVTD, targets_BK = rising_or_falling(4, seed=1)
    model = built(PLAIN)
    run = RunConfig(train=replace(QUICK, batch_size=2, accumulate=4, min_steps=1))
    training_set = TrainingSet(token_examples(model, embeddings_BVTD), targets_BK, [str(row) for row in range(8)])
    trainer = Trainer(model, training_set, run, start_processes("cpu", run.train))
    batches = list(read_batches(training_set.examples, trainer.order, 0, 4, 0))
    looks: list[str] = []
    for name in ("item", "tolist", "__float__", "__bool__"):
        plain = getattr(Tensor, name)

        def noted(tensor: Tensor, name: str = name, plain: Any = plain) -> Any:
            looks.append(name)
            return plain(tensor)

        monkeypatch.setattr(Tensor, name, noted)
    for number, batch in enumerate(batches):
        trainer._loss(batch, number)[0].backward()
    assert looks == []
    step = trainer._step(batches)
    assert step.loss > 0
    assert looks.count("tolist") == 2  # the losses of the four batches, and their means


def videos(clips: Path) -> TrainingSet:
    labels = ("redden", "turn blue")
    samples = tuple(
        Sample(path=str(clips / label / f"{number}.mp4"), labels=(label,)) for label in labels for number in range(6)
    )
    examples = VideoExamples(samples, 4, VIEW, AugmentConfig(), mirror=True)
    return TrainingSet(examples, torch.eye(2).repeat_interleave(6, dim=0), [sample.path for sample in samples])


def trainer_of(training_set: TrainingSet, model: STAM, **settings: Any) -> Trainer:
    config = TrainConfig(**{"epochs": 1, "min_steps": 4, "batch_size": 4, **settings})
    return Trainer(model, training_set, RunConfig(train=config), start_processes("cpu", config))


WHOLE = ModelConfig(
    image_size=32, patch_size=8, width=24, depth=2, heads=3, temporal_depth=1, temporal_heads=4, num_frames=4, num_classes=2,
    drop_path=0.1, temporal_dropout=0.1,
)  # fmt: skip


@pytest.mark.parametrize(("what", "moved"), [("all", {"patch_embed", "0", "1"}), ("last-1-blocks", {"1"})])
def test_what_is_unfrozen_moves_and_the_rest_does_not(clips: Path, what: str, moved: set[str]) -> None:
    model = built(WHOLE)
    trainer = trainer_of(videos(clips), model, unfreeze=what)
    list(trainer.steps())
    before, after = model.frame_encoder.state_dict(), trainer.trained().frame_encoder.state_dict()
    changed = {
        key.split(".")[1] if key.startswith("blocks") else key.split(".")[0]
        for key in before
        if not torch.equal(before[key], after[key])
    }
    assert changed - {"norm", "cls_token", "pos_embed"} == moved


def test_frames_through_blocks_that_do_not_learn_go_few_at_a_time(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = []
    for at_once in (3, 10**6):
        monkeypatch.setattr("fewframes.training.steps.trained_part.FRAMES_AT_ONCE", at_once)
        model = built(replace(WHOLE, drop_path=0.0))
        most: list[int] = []
        encode = model.frame_encoder.forward

        def counted(frames_MCHW: Tensor, encode: Any = encode, most: list[int] = most) -> Tensor:
            most.append(len(frames_MCHW))
            encoded: Tensor = encode(frames_MCHW)
            return encoded

        trainer = trainer_of(videos(clips), model, unfreeze="last-1-blocks", min_steps=3)
        monkeypatch.setattr(trainer.model.frame_encoder, "forward", counted)
        losses.append([step.loss for step in trainer.steps()])
        assert max(most) == min(at_once, 16)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_small_steps_have_one_thread_and_large_ones_all() -> None:
    embeddings_BVTD, targets_BK = rising_or_falling(4, seed=1)
    trainer = trainer_of(TrainingSet(TokenExamples(embeddings_BVTD), targets_BK, ["x"] * 8), built(PLAIN))
    num_weights = sum(weight.numel() for weight in trainer.learner.parameters() if weight.requires_grad)
    assert trainer.step_gflop == pytest.approx(6 * num_weights * 4 * 9 / 1e9)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    for gflop, threads in ((trainer.step_gflop, 1), (ONE_THREAD_GFLOP + 1, 2)):
        with few_threads(torch.device("cpu"), gflop):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


@pytest.mark.parametrize("layout", ["joint", "per_block"])
def test_layouts_that_mix_frames_learn_too(clips: Path, layout: Any) -> None:
    model = built(replace(WHOLE, layout=layout, temporal="mean", temporal_dropout=0.0))
    trainer = trainer_of(videos(clips), model, unfreeze="all", min_steps=2)
    assert len(list(trainer.steps())) == 3
    trained = trainer.trained()
    assert not torch.equal(trained.frame_encoder.time_embed, model.frame_encoder.time_embed)  # type: ignore[arg-type]


def test_checkpointing_gives_the_same_weights_and_lite0_says_no(clips: Path) -> None:
    models = []
    for checkpointing in (False, True):
        trainer = trainer_of(
            videos(clips),
            built(replace(WHOLE, drop_path=0.0)),
            unfreeze="all",
            checkpointing=checkpointing,
            min_steps=1,
        )
        next(trainer.steps())
        models.append(trainer.trained())
    assert same(*models)
    lite = build_model(replace(WHOLE, encoder="lite0", drop_path=0.0), VIEW)
    with pytest.raises(ConfigError, match="checkpointing works with ViT and timm encoders"):
        trainer_of(videos(clips), lite, unfreeze="all", checkpointing=True)


def test_batch_norms_keep_their_statistics(clips: Path) -> None:
    model = build_model(replace(WHOLE, encoder="lite0", drop_path=0.0), VIEW)
    before = copy.deepcopy(model.frame_encoder.state_dict())
    trainer = trainer_of(videos(clips), model, unfreeze="all", min_steps=1)
    next(trainer.steps())
    after = trainer.trained().frame_encoder.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before if "running" in key)
    assert not torch.equal(before["conv_head.weight"], after["conv_head.weight"])


def test_stochastic_depth_leaves_branches_out_in_training_alone() -> None:
    torch.manual_seed(0)
    block = Block(8, 2, mlp_width=16, drop_path=0.5)
    tokens = torch.randn(200, 3, 8)
    out = block.train()(tokens)
    untouched = (out == tokens).flatten(1).all(dim=1).float().mean().item()
    assert untouched == pytest.approx(0.25, abs=0.1)  # both branches left out
    whole = block.eval()(tokens)
    assert not (whole == tokens).flatten(1).all(dim=1).any()


def test_a_run_goes_on_where_it_was_cut_off(clips: Path, tmp_path: Path) -> None:
    settings = {"unfreeze": "all", "ema_decay": 0.9, "accumulate": 2, "min_steps": 6, "batch_size": 2}
    through = trainer_of(videos(clips), built(WHOLE), **settings)
    steps = [replace(step, seconds=0.0, waited_s=0.0) for step in through.steps()]

    first = trainer_of(videos(clips), built(WHOLE), **settings)
    seen: list[TrainingStep] = []
    for step in first.steps():
        seen.append(replace(step, seconds=0.0, waited_s=0.0))
        if step.number == 2:
            first.save(tmp_path / "state.pt", {"so far": 2})
        if step.number == 3:  # this one was not saved and is lost
            break
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    torch.rand(7)  # what others drew meanwhile has no say
    second = trainer_of(videos(clips), built(WHOLE), **settings)
    assert second.restore(tmp_path / "state.pt") == {"so far": 2}
    assert seen[:2] + [replace(step, seconds=0.0, waited_s=0.0) for step in second.steps()] == steps
    assert same(second.trained(), through.trained())


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    model = built(PLAIN)
    embeddings_BVTD, targets_BK = rising_or_falling(4, seed=1)
    training_set = TrainingSet(TokenExamples(embeddings_BVTD), targets_BK, ["x"] * 8)
    trainer = trainer_of(training_set, model)
    next(trainer.steps())
    trainer.save(tmp_path / "state.pt", {})
    content = (tmp_path / "state.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: len(content) // 2])
    (tmp_path / "other.pt").write_bytes(b"text")
    for name in ("cut.pt", "other.pt", "none.pt"):
        with pytest.raises(ConfigError, match=f"{name}: not the state of this run .* start anew: --overwrite"):
            trainer_of(training_set, model).restore(tmp_path / name)


def test_what_cannot_be_started() -> None:
    training_set = TrainingSet(TokenExamples(torch.zeros(2, 1, 8, 24)), torch.eye(2), ["x", "y"])
    with pytest.raises(
        ConfigError, match="shard = true spreads a network over several processes, but there is only one"
    ):
        trainer_of(training_set, built(PLAIN), shard=True)
    with pytest.raises(MissingDependency, match="tracker 'clearml' is not installed; pip install clearml"):
        start_processes("cpu", TrainConfig(trackers=("clearml",)))
    with pytest.raises(ConfigError, match="tracker 'wanbd': did you mean 'wandb'"):
        start_processes("cpu", TrainConfig(trackers=("wanbd",)))


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
def test_a_compiled_network_learns_the_same(clips: Path) -> None:
    config = replace(WHOLE, depth=1, drop_path=0.0, temporal_dropout=0.0)
    losses = []
    for wanted in (False, True):
        trainer = trainer_of(videos(clips), built(config), unfreeze="all", compile=wanted, min_steps=2)
        losses.append([step.loss for step in trainer.steps()])
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
