"""Recorded steps: by a stand-in for the GPU, which keys, bounds and invalidations are right; on a GPU, the numbers."""

import gc

import pytest
import torch
from factories import draw, error, randomise, unet_params
from step_recorder import Recorder
from torch.utils.flop_counter import FlopCounterMode

from unclip.unclip_core.nets import step_graphs
from unclip.unclip_core.nets.layers import TimeTable
from unclip.unclip_core.nets.step_graphs import StepGraphs
from unclip.unclip_core.nets.unet import UNet


class Net(torch.nn.Linear):
    """(x, t, condition) -> output."""

    def __init__(self):
        super().__init__(4, 4)
        self.ran = 0

    def forward(self, x, t, condition, times=None):
        self.ran += 1
        time = t[:, None].float() if times is None else times(t)
        extra = 0 if condition is None else condition["deep"]["of"]
        return super().forward(x) + time + extra


@pytest.fixture
def recorder(monkeypatch):
    """The process's graphs, replaced; a CPU passes for a GPU."""
    made = Recorder()
    monkeypatch.setattr(step_graphs, "GRAPHS", StepGraphs(made, most=2))
    monkeypatch.setattr(step_graphs, "pays", lambda x: not torch.is_grad_enabled())
    return made


def given(batch=2, seed=1):
    condition = {"deep": {"of": draw(batch, 4, seed=seed + 50)}, "none": None}
    return draw(batch, 4, seed=seed), torch.full((batch,), seed), condition


@torch.no_grad()
def test_the_first_step_is_plain_the_second_recorded_and_all_are_equal(recorder):
    net = Net()
    run, made = step_graphs.stepped(net, net), []
    for seed in range(5):
        made.append((run(*given(seed=seed)), net(*given(seed=seed))))
    assert (recorder.recorded, recorder.replayed) == (1, 4)
    assert all(torch.equal(replayed, plain) for replayed, plain in made)  # none was written over by the next


@torch.no_grad()
def test_embedded_times_are_an_input(recorder):
    net = randomise(UNet(unet_params(3, (0, 0))))

    def forward(x, t, _, times):
        return net(x, t, times=times)

    for times in (torch.tensor([900, 500, 20]), torch.tensor([7, 3, 1])):  # the second run has the graph of the first
        run = step_graphs.stepped(net, forward, TimeTable(net.time_embed, times))
        for number in times:
            x, t = draw(2, 3, 8, 8, seed=int(number)), number.expand(2)
            assert error(run(x, t, None), net(x, t)) < 1e-6
    assert (recorder.recorded, recorder.replayed) == (1, 5)


@torch.no_grad()
def test_other_shapes_are_other_graphs_and_few_are_kept(recorder):
    net = Net()
    run = step_graphs.stepped(net, net)
    for batch in (1, 1, 2, 2, 3, 3):
        run(*given(batch))
    assert recorder.recorded == 3 and len(step_graphs.GRAPHS) == 2 and recorder.pools == 1
    run(*given(2)), run(*given(3))
    assert recorder.recorded == 3
    run(*given(1))
    assert recorder.recorded == 4 and len(step_graphs.GRAPHS) == 2
    assert torch.equal(run(*given(3)), net(*given(3)))


@torch.no_grad()
@pytest.mark.parametrize(("most", "recorded"), [(4, 3), (3, 3), (2, 12)])
def test_shapes_in_rotation_are_recorded_once_where_there_is_room(recorder, monkeypatch, most, recorded):
    monkeypatch.setattr(step_graphs, "GRAPHS", StepGraphs(recorder, most=most))
    net = Net()
    for _ in range(5):
        for batch in (1, 2, 3):
            assert torch.equal(step_graphs.stepped(net, net)(*given(batch)), net(*given(batch)))
    assert recorder.recorded == recorded and len(step_graphs.GRAPHS) == min(most, 3)


class TwoWays(Net):
    """A net with a second method of the same signature."""

    def doubled(self, x, t, condition, times=None):
        return 2 * self(x, t, condition, times)


@torch.no_grad()
def test_another_method_of_a_net_has_a_graph_of_its_own(recorder, monkeypatch):
    monkeypatch.setattr(step_graphs, "GRAPHS", StepGraphs(recorder, most=4))
    net, other = TwoWays(), TwoWays()
    for seed in range(4):  # a bound method is another object each time
        plain = net(*given(seed=seed))
        assert torch.equal(step_graphs.stepped(net, net)(*given(seed=seed)), plain)
        assert torch.equal(step_graphs.stepped(net, net.doubled)(*given(seed=seed)), 2 * plain)
        assert torch.equal(step_graphs.stepped(net, other.doubled)(*given(seed=seed)), other.doubled(*given(seed=seed)))
    assert recorder.recorded == 3 and len(step_graphs.GRAPHS) == 3


@torch.no_grad()
def test_a_graph_is_freed_with_the_function_that_it_is_of(recorder):
    """Else the next function could have its place in memory, and its graph."""
    recorder.forgetful, net = True, Net()

    def forward(x, t, condition, times):
        return net(x, t, condition, times)

    for seed in range(3):
        step_graphs.stepped(net, forward)(*given(seed=seed))
    assert len(step_graphs.GRAPHS) == 1
    del forward
    gc.collect()
    assert len(step_graphs.GRAPHS) == 0 and not step_graphs.GRAPHS._steps


@torch.no_grad()
def test_many_shapes_that_come_once_are_not_remembered_for_ever(recorder):
    net = Net()
    for batch in range(1, 40):
        step_graphs.stepped(net, net)(*given(batch))
    assert len(step_graphs.GRAPHS._steps) == 16 and recorder.recorded == 0


@torch.no_grad()
def test_weights_that_have_moved_are_recorded_anew(recorder):
    net = Net()
    run = step_graphs.stepped(net, net)
    for seed in range(3):
        run(*given(seed=seed))
    net.weight = torch.nn.Parameter(net.weight * 2, requires_grad=False)
    assert torch.equal(run(*given()), net(*given()))
    assert recorder.recorded == 2 and len(step_graphs.GRAPHS) == 1


@torch.no_grad()
def test_modules_are_gone_through_once_a_run(recorder, monkeypatch):
    """That took 5 ms a step of Karlo's decoder, as long as the half of its kernels."""
    net, asked = Net(), []
    monkeypatch.setattr(step_graphs, "_holders", lambda net: asked.append(net) or [net._parameters])
    for number in (1, 2):
        run = step_graphs.stepped(net, net)
        for seed in range(4):
            run(*given(seed=seed))
        assert len(asked) == number and recorder.recorded == 1


@torch.no_grad()
def test_graphs_are_freed_with_their_net_and_on_request(recorder):
    recorder.forgetful, nets = True, [Net(), Net()]
    for net in nets:
        for seed in range(3):
            step_graphs.stepped(net, net)(*given(seed=seed))
    assert len(step_graphs.GRAPHS) == 2
    step_graphs.GRAPHS.release(torch.nn.ModuleList([nets[0]]))
    assert len(step_graphs.GRAPHS) == 1
    del net, nets[1]
    gc.collect()
    assert len(step_graphs.GRAPHS) == 0 and not step_graphs.GRAPHS._steps
    for seed in range(2):
        step_graphs.stepped(nets[0], nets[0])(*given(seed=seed))
    assert recorder.pools == 2  # the memory of the first is given back
    step_graphs.GRAPHS.release()
    assert len(step_graphs.GRAPHS) == 0


@torch.no_grad()
def test_what_cannot_be_recorded_runs_plainly_and_is_said_once(recorder, caplog):
    def fail(*_):
        raise RuntimeError("operation not permitted when stream is capturing")

    recorder.record = fail
    net = Net()
    for seed in range(4):
        assert torch.equal(step_graphs.stepped(net, net)(*given(seed=seed)), net(*given(seed=seed)))
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "The steps of a Net are not recorded, and take longer: operation not permitted when stream is capturing"
    ]


def test_nothing_is_recorded_with_gradients_hooks_or_where_it_is_not_allowed(recorder, monkeypatch):
    net = Net()
    for seed in range(3):
        assert step_graphs.stepped(net, net)(*given(seed=seed)).requires_grad
    with torch.no_grad():
        with step_graphs.not_recorded():
            run = step_graphs.stepped(net, net)
        hook = net.register_forward_hook(lambda *_: None)
        hooked = step_graphs.stepped(net, net)
        hook.remove()
        monkeypatch.setenv("UNCLIP_PLAIN", "1")
        plain = step_graphs.stepped(net, net)
        for way in (run, hooked, plain):
            for seed in range(3):
                assert torch.equal(way(*given(seed=seed)), net(*given(seed=seed)))
    assert recorder.recorded == 0


@torch.no_grad()
def test_inputs_of_inference_mode_serve(recorder):
    """ComfyUI runs nodes in it; what is recorded there has to take inputs from outside, and the other way round."""
    net = Net()
    run = step_graphs.stepped(net, net)
    with torch.inference_mode():
        for seed in range(3):
            assert torch.equal(run(*given(seed=seed)), net(*given(seed=seed)))
    assert torch.equal(run(*given(seed=7)), net(*given(seed=7)))
    assert recorder.recorded == 1


def test_only_a_gpu_records():
    with torch.no_grad():
        assert not step_graphs.pays(draw(1))


def test_what_counts_operations_sees_them():
    """A counter of FLOP sees none in a replay."""
    assert step_graphs.is_watched()
    with torch.no_grad():
        assert not step_graphs.is_watched()
        with FlopCounterMode(display=False) as counter:
            assert step_graphs.is_watched()
            torch.ones(2, 3) @ torch.ones(3, 4)
        assert counter.get_total_flops() == 48 and not step_graphs.is_watched()


@pytest.mark.gpu
@torch.no_grad()
def test_on_a_gpu_replayed_steps_equal_plain_ones():
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU: what torch records is not tested here")
    net = randomise(UNet(unet_params(3, (0, 0)))).requires_grad_(False).to("cuda")
    run = step_graphs.stepped(net, lambda x, t, _, times: net(x, t, times=times))
    before = len(step_graphs.GRAPHS)
    for seed in range(4):
        x, t = draw(2, 3, 16, 16, seed=seed).cuda(), torch.tensor([seed, 900], device="cuda")
        assert error(run(x, t, None), net(x, t)) < 1e-5
    assert len(step_graphs.GRAPHS) == before + 1
    for _ in range(2):
        run(torch.cat([x, x]), torch.cat([t, t]), None)
    assert len(step_graphs.GRAPHS._backend._streams) == 1  # and so one workspace of cuBLAS
    step_graphs.GRAPHS.release(net)
