"""Networks and batches as other people build them: nothing is wrong with any, and most look as if."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal

from causes.habits import CLASSES, COUNTS, HABITS, NUMBERS, ONES, RANDOM, Habit, X, habit, layers, network, one_hot

SEQUENCES = torch.randn(32, 12, 8, generator=RANDOM)
TOKENS = torch.randint(1, 20, (32, 12), generator=RANDOM)
LENGTHS = torch.randint(4, 13, (32,), generator=RANDOM)
PADDING = torch.arange(12)[None] >= LENGTHS[:, None]
NEIGHBOURS = (torch.rand(32, 32, generator=RANDOM) < 0.1).float()
EDGES = torch.randint(0, 32, (2, 100), generator=RANDOM)
IMAGES = torch.randn(8, 3, 6, 6, generator=RANDOM)

# --- sequences


def last_state(module: Any, inputs: Any) -> Tensor:
    state = module.rnn(inputs)[1]
    return (state[0] if isinstance(state, tuple) else state)[-1]


LSTM = layers(rnn=lambda: nn.LSTM(8, 16, batch_first=True), head=network(16, 3))
BOTH_WAYS = layers(rnn=lambda: nn.GRU(8, 4, bidirectional=True), head=network(8, 3))


def packed(module: Any, batch: Any) -> Tensor:
    tokens, lengths, labels = batch
    sequences = nn.utils.rnn.pack_padded_sequence(module.embed(tokens), lengths, batch_first=True, enforce_sorted=False)
    return F.cross_entropy(module.head(last_state(module, sequences)), labels)


habit("lstm", [SEQUENCES, CLASSES], LSTM, lambda m, b: F.cross_entropy(m.head(m.rnn(b[0])[0][:, -1]), b[1]))
habit(
    "places", [SEQUENCES, TOKENS % 3], LSTM, lambda m, b: F.cross_entropy(m.head(m.rnn(b[0])[0]).transpose(1, 2), b[1])
)
habit(
    "places as samples",
    [SEQUENCES, TOKENS % 3],
    LSTM,
    lambda m, b: F.cross_entropy(m.head(m.rnn(b[0])[0]).flatten(0, 1), b[1].flatten()),
)
habit("packed", [TOKENS, LENGTHS, CLASSES], lambda m: (LSTM(m), layers(embed=lambda: nn.Embedding(20, 8))(m)), packed)
habit(
    "time first",
    [SEQUENCES.transpose(0, 1), SEQUENCES.transpose(0, 1)[..., :3]],
    BOTH_WAYS,
    lambda m, b: F.mse_loss(m.head(m.rnn(b[0])[0]), b[1]),
)
habit(
    "a batch that is one sequence", [X, CLASSES], BOTH_WAYS, lambda m, b: F.cross_entropy(m.head(m.rnn(b[0])[0]), b[1])
)
habit(
    "a sequence of batches of one",
    [X, CLASSES],
    BOTH_WAYS,
    lambda m, b: F.cross_entropy(m.head(m.rnn(b[0][:, None])[0][:, 0]), b[1]),
)
habit(
    "a convolution along the batch",
    [X, CLASSES],
    layers(conv=lambda: nn.Conv1d(8, 3, 3, padding=1)),
    lambda m, b: F.cross_entropy(m.conv(b[0].T).T, b[1]),
)
TIED = layers(embed=lambda: nn.Embedding(20, 16), rnn=lambda: nn.GRU(16, 16, batch_first=True))


def masked_tokens(module: Any, tokens: Tensor) -> Tensor:
    hidden = torch.rand(tokens.shape) < 0.15
    states = module.rnn(module.embed(tokens.masked_fill(hidden, 0)))[0]
    return F.cross_entropy((states @ module.embed.weight.T).transpose(1, 2), tokens.masked_fill(~hidden, -100))


habit("masked tokens, tied weights", TOKENS, TIED, masked_tokens)
ENCODER = layers(
    embed=network(8, 16),
    attention=lambda: nn.MultiheadAttention(16, 2, batch_first=True),
    encoder=lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 1, enable_nested_tensor=False
    ),
    head=network(16, 3),
)
PADDED = {"x": SEQUENCES, "padding": PADDING, "y": CLASSES}


def encoded(module: Any, batch: Any) -> Tensor:
    states = module.encoder(module.embed(batch["x"]), src_key_padding_mask=batch["padding"])
    return F.cross_entropy(module.head(states.mean(1)), batch["y"])


def attended(module: Any, batch: Any) -> Tensor:
    states = module.embed(batch["x"])
    states = module.attention(states, states, states, key_padding_mask=batch["padding"])[0]
    return F.cross_entropy(module.head(states.mean(1)), batch["y"])


def attended_by_hand(module: Any, batch: Any) -> Tensor:
    states = module.embed(batch["x"])
    scores = (states @ states.transpose(1, 2) / 4).masked_fill(batch["padding"][:, None], -torch.inf)
    return F.cross_entropy(module.head((scores.softmax(-1) @ states).mean(1)), batch["y"])


def as_one_set(module: Any, batch: Any) -> Tensor:
    states = module.embed(batch[0])[None]
    return F.cross_entropy(module.head(module.attention(states, states, states)[0][0]), batch[1])


habit("attention with a mask", PADDED, ENCODER, encoded)
habit(
    "attention with a mask of minus infinity",
    PADDED | {"padding": torch.zeros(32, 12).masked_fill(PADDING, -torch.inf)},
    ENCODER,
    attended,
)
habit("attention by hand", PADDED, ENCODER, attended_by_hand)
habit("a batch that is one set", [X, CLASSES], ENCODER, as_one_set)
habit(
    "attention among samples",
    [X, CLASSES],
    ENCODER,
    lambda m, b: F.cross_entropy(m.head((m.embed(b[0]) @ m.embed(b[0]).T).softmax(1) @ m.embed(b[0])), b[1]),
)
CHOICES = [torch.randn(16, 4, 8, generator=RANDOM), torch.arange(16) % 4]
habit("multiple choice", CHOICES, layers(net=network(8, 1)), lambda m, b: F.cross_entropy(m.net(b[0])[..., 0], b[1]))
habit(
    "start and end of an answer",
    [SEQUENCES, TOKENS[:, 0] % 12, TOKENS[:, 1] % 12],
    layers(net=network(8, 2)),
    lambda m, b: F.cross_entropy(m.net(b[0])[..., 0], b[1]) + F.cross_entropy(m.net(b[0])[..., 1], b[2]),
)

# --- tables, ratings, graphs

EMBEDDINGS = layers(
    users=lambda: nn.Embedding(32, 8),
    items=lambda: nn.Embedding(20, 8),
    numbers=lambda: nn.Linear(8, 8),
    head=network(16, 3),
)
RATED = [torch.arange(32), TOKENS[:, 0], TOKENS[:, 1], 1 + COUNTS[:, 0] % 5]


def score(module: Any, users: Tensor, items: Tensor) -> Tensor:
    return (module.users(users) * module.items(items)).sum(1)


habit("ratings", RATED, EMBEDDINGS, lambda m, b: F.mse_loss(score(m, b[0], b[1]), b[3]))
habit(
    "one before another", RATED, EMBEDDINGS, lambda m, b: -F.logsigmoid(score(m, *b[:2]) - score(m, *b[::2][:2])).mean()
)
habit(
    "a column that is still empty",
    [TOKENS[:, 0], torch.zeros(32, 8), CLASSES],
    EMBEDDINGS,
    lambda m, b: F.cross_entropy(m.head(torch.cat([m.items(b[0]), m.numbers(b[1])], 1)), b[2]),
)


@dataclasses.dataclass
class Graph:
    x: Tensor
    edges: Tensor
    y: Tensor


GRAPH = layers(first=lambda: nn.Linear(8, 16), head=network(16, 3))


def along_edges(module: Any, graph: Graph) -> Tensor:
    states = module.first(graph.x)
    states = torch.zeros_like(states).index_add(0, graph.edges[1], states[graph.edges[0]])
    return F.cross_entropy(module.head(states.relu()), graph.y)


def among_neighbours(module: Any, batch: Any) -> Tensor:
    states = (batch["neighbours"] @ module.first(batch["x"])).relu()
    return F.cross_entropy(batch["neighbours"] @ module.head(states), batch["y"])


habit("a graph", Graph(X, EDGES, CLASSES), GRAPH, along_edges)
habit("a graph of nodes that are alike", Graph(torch.ones(32, 8), EDGES, CLASSES), GRAPH, along_edges)
habit("a graph as a matrix", {"x": X, "neighbours": NEIGHBOURS, "y": CLASSES}, GRAPH, among_neighbours)
habit(
    "the same with nodes alike",
    {"x": torch.ones(32, 8), "neighbours": NEIGHBOURS, "y": CLASSES},
    GRAPH,
    among_neighbours,
)
habit(
    "sparse inputs",
    [torch.eye(32).to_sparse(), CLASSES],
    layers(weight=lambda: nn.Parameter(torch.randn(32, 3))),
    lambda m, b: F.cross_entropy(torch.sparse.mm(b[0], m.weight), b[1]),
)

# --- contrasts, prototypes, teachers

ENCODE = layers(
    net=network(8, 16, 8),
    other=network(8, 16, 8),
    temperature=lambda: nn.Parameter(torch.tensor(2.6)),
    centres=lambda: nn.Parameter(torch.randn(3, 8)),
)


def views(module: Any, batch: Any) -> list[Tensor]:
    return [F.normalize(module.net(batch[0] + 0.1 * torch.randn_like(batch[0]))) for _ in range(2)]


def nt_xent(module: Any, batch: Any) -> Tensor:
    codes = torch.cat(views(module, batch))
    similarities = codes @ codes.T / 0.5
    similarities.fill_diagonal_(-1e9)
    return F.cross_entropy(similarities, torch.arange(len(codes)).roll(len(codes) // 2))


def image_and_text(module: Any, batch: Any) -> Tensor:
    codes = F.normalize(module.net(batch[0])), F.normalize(module.other(batch[1]))
    logits = codes[0] @ codes[1].T * module.temperature.exp()
    labels = torch.arange(len(logits))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def same_class(module: Any, batch: Any) -> Tensor:
    codes = F.normalize(module.net(batch[0]))
    logits = codes @ codes.T / 0.1
    same = batch[1][:, None] == batch[1][None]
    return -((logits - logits.logsumexp(1, keepdim=True)) * same).sum(1).div(same.sum(1)).mean()


def without_negatives(module: Any, batch: Any) -> Tensor:
    first, second = views(module, batch)
    return -F.cosine_similarity(module.other(first), second.detach()).mean()


def redundancy(module: Any, batch: Any) -> Tensor:
    first, second = ((view - view.mean(0)) / view.std(0) for view in views(module, batch))
    return (first.T @ second / len(first) - torch.eye(8)).square().sum()


def prototypes(module: Any, batch: Any) -> Tensor:
    codes = module.net(batch[0])
    return F.cross_entropy(-torch.cdist(codes, torch.stack([codes[batch[1] == k].mean(0) for k in range(3)])), batch[1])


def margin_of_angles(module: Any, batch: Any) -> Tensor:
    cosines = F.linear(F.normalize(module.net(batch[0])), F.normalize(module.centres)).clamp(-0.999, 0.999)
    mine = F.one_hot(batch[1], 3).bool()
    return F.cross_entropy(30 * torch.where(mine, (cosines.acos() + 0.5).cos(), cosines), batch[1])


def pair(module: Any, batch: Any) -> Tensor:
    distances = F.pairwise_distance(module.net(batch[0]), module.net(batch[1]))
    return (batch[2] * distances**2 + (1 - batch[2]) * (1 - distances).relu() ** 2).mean()


def quantised(module: Any, batch: Any) -> Tensor:
    code = module.net(batch[0])
    near = module.centres[torch.cdist(code, module.centres).argmin(1)]
    rebuilt = module.other(code + (near - code).detach())
    return F.mse_loss(rebuilt, batch[0]) + F.mse_loss(near, code.detach()) + F.mse_loss(code, near.detach())


for name, function in {
    "nt_xent": nt_xent,
    "image and text": image_and_text,
    "same class": same_class,
    "without negatives": without_negatives,
    "redundancy": redundancy,
    "prototypes": prototypes,
    "margin of angles": margin_of_angles,
    "quantised": quantised,
    "cosines as logits": lambda m, b: F.cross_entropy(16 * F.normalize(m.net(b[0])) @ F.normalize(m.centres).T, b[1]),
    "triplets": lambda m, b: F.triplet_margin_loss(m.net(b[0]), m.other(b[0]), m.net(b[0].roll(1, 0))),
}.items():
    second = [X, X.flip(1)] if name == "image and text" else [X, CLASSES]
    habit(name, second, ENCODE, function)
habit("pairs", [X, X.flip(1), ONES[:, 0]], ENCODE, pair)


def learned(*widths: int) -> nn.Sequential:
    """A network that was trained elsewhere."""
    made = network(*widths)()
    optimizer = torch.optim.Adam(made.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(made(X), CLASSES).backward()
        optimizer.step()
    made.zero_grad()
    return made


class Part(Habit):
    """An optimizer of one part alone."""

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam([*self.net.parameters(), *getattr(self, "more", [])])


def part(name: str, build: Callable[[Any], object], loss: Callable[[Any, Any], Tensor]) -> None:
    HABITS[name] = lambda: (Part(build, loss), [X.clone(), CLASSES.clone()])


def distilled(module: Any, batch: Any) -> Tensor:
    outputs, teacher = module.net(batch[0]), module.teacher(batch[0])
    soft = F.kl_div((outputs / 2).log_softmax(1), (teacher / 2).softmax(1), reduction="batchmean")
    return F.cross_entropy(outputs, batch[1]) + 4 * soft


def with_teacher(module: Any, batch: Any) -> Tensor:
    return F.mse_loss(module.net(batch[0]), module.teacher(batch[0])) + F.cross_entropy(module.net(batch[0]), batch[1])


def ema(module: Any) -> None:
    module.net = network(8, 16, 3)()
    module.teacher = copy.deepcopy(module.net).requires_grad_(False)


def frozen(module: Any) -> None:
    module.body, module.net = network(8, 16)(), network(16, 3)()
    module.body.requires_grad_(False).eval()


def low_rank(module: Any) -> None:
    frozen(module)
    module.net.requires_grad_(False)
    module.more = [nn.Parameter(torch.randn(4, 8)), nn.Parameter(torch.zeros(16, 4))]
    module.down, module.up = module.more


def hidden_in_a_list(module: Any) -> None:
    module.net, module.kept = network(8, 16, 3)(), [learned(8, 16, 3)]
    module.teacher = lambda inputs: module.kept[0](inputs)


def listed(module: Any) -> None:
    module.net, module.listed = network(8, 16)(), [nn.Linear(16, 3)]
    module.more = [*module.listed[0].parameters()]


def through_body(module: Any, batch: Any) -> Tensor:
    return F.cross_entropy(module.net(module.body(batch[0])), batch[1])


part("a teacher with gradients", layers(net=network(8, 16, 3), teacher=lambda: learned(8, 16, 3)), distilled)
part("a teacher that follows", ema, with_teacher)
part("a teacher in a list", hidden_in_a_list, with_teacher)
part("a trained body with gradients", layers(net=network(16, 3), body=lambda: learned(8, 16, 16)), through_body)
part("a frozen body", frozen, through_body)
part(
    "low rank",
    low_rank,
    lambda m, b: F.cross_entropy(m.net((m.body(b[0]) + b[0] @ m.down.T @ m.up.T).relu()), b[1]),
)
part(
    "a list whose layers are optimized",
    listed,
    lambda m, b: F.cross_entropy(m.listed[0](m.net(b[0]).relu()), b[1]),
)

# --- generative

VAE = layers(encode=lambda: nn.Linear(8, 6), decode=lambda: nn.Linear(3, 8))


def vae(rebuild: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Any, Any], Tensor]:
    def loss(module: Any, batch: Any) -> Tensor:
        mean, variance = module.encode(batch[0]).chunk(2, 1)
        code = mean + (variance / 2).exp() * torch.randn_like(mean)
        divergence = -0.5 * (1 + variance - mean**2 - variance.exp()).sum(1).mean()
        return rebuild(module.decode(code), batch[0]) + divergence

    return loss


def denoise(module: Any, batch: Any) -> Tensor:
    time, noise = torch.rand(len(batch[0]), 1), torch.randn_like(batch[0])
    return F.mse_loss(module.net((1 - time).sqrt() * batch[0] + time.sqrt() * noise), noise)


def zero_out(module: Any) -> None:
    module.net = network(8, 16, 8)()
    nn.init.zeros_(module.net[2].weight)
    nn.init.zeros_(module.net[2].bias)


def coupling(module: Any, batch: Any) -> Tensor:
    kept, changed = batch[0].chunk(2, 1)
    scale, shift = module.net(torch.cat([kept, kept], 1)).chunk(2, 1)
    return (0.5 * (changed * scale.exp() + shift).square().sum(1) - scale.sum(1)).mean()


habit("vae, sums", [X, CLASSES], VAE, vae(lambda out, x: F.mse_loss(out, x, reduction="sum") / len(x)))
habit("vae, means", [X, CLASSES], VAE, vae(F.mse_loss))
habit("vae, by hand", [X, CLASSES], VAE, vae(lambda out, x: ((out - x) ** 2).sum(1).mean()))
habit(
    "vae, of zeros to ones", [X.sigmoid(), CLASSES], VAE, vae(lambda out, x: F.binary_cross_entropy(out.sigmoid(), x))
)
habit("vae, distributions", [X, CLASSES], VAE, vae(lambda out, x: -Normal(out, 1.0).log_prob(x).sum(1).mean()))
habit("autoencoder", [X, CLASSES], ENCODE, lambda m, b: F.mse_loss(m.net(b[0]), b[0]))
habit("diffusion that starts at zero", [X, CLASSES], zero_out, denoise)
habit("coupling that starts at zero", [X, CLASSES], zero_out, coupling)
CRITIC = layers(make=lambda: nn.Linear(8, 8), net=network(8, 16, 1, activation=nn.LeakyReLU))


def tell_apart(module: Any, batch: Any) -> Tensor:
    made, real = module.net(module.make(torch.randn_like(batch[0])).detach()), module.net(batch[0])
    loss = F.binary_cross_entropy_with_logits
    return loss(real, torch.ones_like(real)) + loss(made, torch.zeros_like(made))


habit("a discriminator", [X, CLASSES], CRITIC, tell_apart)
habit("a critic", [X, CLASSES], CRITIC, lambda m, b: m.net(m.make(b[0]).detach()).mean() - m.net(b[0]).mean())

# --- gradients with respect to inputs; adversaries


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        return inputs.view_as(inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return -gradient


FIELD = layers(net=network(8, 16, 1, activation=nn.Tanh))
DOMAINS = layers(net=network(8, 16), head=network(16, 3), domain=network(16, 1))


def equation(module: Any, batch: Any) -> Tensor:
    field = module.net(batch[0].requires_grad_())
    slope = torch.autograd.grad(field.sum(), batch[0], create_graph=True)[0]
    return slope.square().mean() + F.mse_loss(field, batch[1])


def forces(module: Any, batch: Any) -> Tensor:
    places = batch[0].clone().requires_grad_()
    return F.mse_loss(-torch.autograd.grad(module.net(places).sum(), places, create_graph=True)[0], batch[1])


def perturbed(module: Any, batch: Any) -> Tensor:
    shift = torch.zeros_like(batch[0], requires_grad=True)
    uphill = torch.autograd.grad(F.mse_loss(module.net(batch[0] + shift), batch[1]), shift)[0]
    return F.mse_loss(module.net(batch[0] + 0.1 * uphill.sign()), batch[1])


def domain(module: Any, batch: Any, reverse: Callable[[Tensor], Tensor]) -> Tensor:
    return F.binary_cross_entropy_with_logits(module.domain(reverse(module.net(batch[0]).relu())), batch[2])


def task(module: Any, batch: Any) -> Tensor:
    return F.cross_entropy(module.head(module.net(batch[0]).relu()), batch[1])


habit("an equation", [X, NUMBERS], FIELD, equation)
habit("forces", [X, X.flip(1)], FIELD, forces)
habit("perturbed inputs", [X, NUMBERS], FIELD, perturbed)
habit("domains, reversed", [X, CLASSES, ONES], DOMAINS, lambda m, b: domain(m, b, Reversed.apply) + task(m, b))
habit("domains, subtracted", [X, CLASSES, ONES], DOMAINS, lambda m, b: -domain(m, b, lambda h: h) + 1.0 * task(m, b))

# --- gates, experts, positions, starts

MANY = layers(
    gate=lambda: nn.Linear(8, 4), experts=lambda: nn.Linear(8, 12), first=lambda: nn.Linear(8, 3), net=network(8, 16, 3)
)


def by_experts(module: Any, batch: Any) -> Tensor:
    return (module.gate(batch[0]).softmax(1)[:, :, None] * module.experts(batch[0]).view(-1, 4, 3)).sum(1)


def positions(module: Any) -> None:
    module.places, module.head = nn.Parameter(torch.zeros(12, 8)), nn.Linear(8, 3)


def residual(module: Any) -> None:
    module.first, module.inner, module.head = nn.Linear(8, 16), network(16, 16, 16)(), nn.Linear(16, 3)
    for layer in (module.inner[2], module.head):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


def straight_through(module: Any, batch: Any) -> Tensor:
    hidden = module.net[0](batch[0])
    return F.cross_entropy(module.net[2](hidden + (hidden.round() - hidden).detach()), batch[1])


habit("a gate", [X, CLASSES], MANY, lambda m, b: F.cross_entropy(m.net(b[0]).sigmoid() * m.first(b[0]), b[1]))
habit("experts", [X, CLASSES], MANY, lambda m, b: F.cross_entropy(by_experts(m, b), b[1]))
habit(
    "a bag of instances",
    {"bag": X, "y": torch.ones(1)},
    layers(weight=network(8, 1), net=network(8, 1)),
    lambda m, b: F.binary_cross_entropy_with_logits((m.weight(b["bag"]).softmax(0) * m.net(b["bag"])).sum(0), b["y"]),
)
habit("rounded", [X, CLASSES], MANY, straight_through)
habit(
    "positions that start at zero",
    [SEQUENCES, CLASSES],
    positions,
    lambda m, b: F.cross_entropy(m.head((b[0] + m.places).mean(1)), b[1]),
)
habit(
    "residuals and a head that start at zero",
    [X, CLASSES],
    residual,
    lambda m, b: F.cross_entropy(m.head(m.first(b[0]) + m.inner(m.first(b[0]))), b[1]),
)
habit(
    "columns that are the same",
    [X, NUMBERS.expand(32, 2).clone()],
    lambda m: [setattr(m, "net", nn.Linear(8, 2)), nn.init.zeros_(m.net.weight), nn.init.zeros_(m.net.bias)],
    lambda m, b: F.mse_loss(m.net(b[0]), b[1]),
)

# --- samples that meet on purpose


def mixed(module: Any, batch: Any) -> Tensor:
    share, order = float(np.random.beta(0.4, 0.4)), torch.randperm(len(batch[0]))
    outputs = module.net(share * batch[0] + (1 - share) * batch[0][order])
    return share * F.cross_entropy(outputs, batch[1]) + (1 - share) * F.cross_entropy(outputs, batch[1][order])


def mixed_by_numpy(module: Any, batch: Any) -> Tensor:
    order = np.random.permutation(len(batch[0]))
    labels = 0.7 * one_hot(batch[1]) + 0.3 * one_hot(batch[1][order])
    return -(labels * module.net(0.7 * batch[0] + 0.3 * batch[0][order]).log_softmax(1)).sum(1).mean()


def mixed_of_two(module: Any, batch: Any) -> Tensor:
    (x, y), (other, labels) = batch["a"], batch["b"]
    soft = 0.7 * one_hot(y) + 0.3 * one_hot(labels)
    return F.kl_div(module.net(0.7 * x + 0.3 * other).log_softmax(1), soft, reduction="batchmean")


def batch_statistics(module: Any) -> None:
    module.net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16, track_running_stats=False), nn.Linear(16, 3))


habit("mixup", [X, CLASSES], MANY, mixed)
habit("mixup by numpy, soft labels", [X, CLASSES], MANY, mixed_by_numpy)
habit("mixup of two loaders", {"a": [X, CLASSES], "b": [X.flip(0), CLASSES.flip(0)]}, MANY, mixed_of_two)
habit("statistics of the batch", [X, CLASSES], batch_statistics, lambda m, b: F.cross_entropy(m.net(b[0]), b[1]))
habit("centred in the batch", [X, CLASSES], MANY, lambda m, b: F.cross_entropy(m.net(b[0] - b[0].mean(0)), b[1]))
habit(
    "both halves twice",
    [X, CLASSES],
    MANY,
    lambda m, b: F.cross_entropy(m.net(torch.cat([b[0], b[0].flip(0)])), torch.cat([b[1], b[1].flip(0)])),
)

# --- images, types, odd sizes

habit(
    "pixels",
    [IMAGES, torch.randint(0, 3, (8, 6, 6))],
    layers(net=lambda: nn.Conv2d(3, 3, 3, padding=1)),
    lambda m, b: F.cross_entropy(m.net(b[0]), b[1]),
)
habit(
    "one place left",
    [IMAGES, CLASSES[:8]],
    layers(net=lambda: nn.Conv2d(3, 3, 6)),
    lambda m, b: F.cross_entropy(m.net(b[0])[:, :, 0, 0], b[1]),
)
habit(
    "bytes",
    [(40 * IMAGES).abs().byte(), CLASSES[:8]],
    layers(net=lambda: nn.Conv2d(3, 3, 6)),
    lambda m, b: F.cross_entropy(m.net(b[0].float() / 128)[:, :, 0, 0], b[1]),
)
habit(
    "half precision",
    [X, CLASSES],
    lambda m: [MANY(m), m.bfloat16()],
    lambda m, b: F.cross_entropy(m.net(b[0].bfloat16()), b[1]),
)
habit(
    "double precision",
    [X, CLASSES],
    lambda m: [MANY(m), m.double()],
    lambda m, b: F.cross_entropy(m.net(b[0].double()), b[1]),
)
habit("one sample", [X[:1], CLASSES[:1]], MANY, lambda m, b: F.cross_entropy(m.net(b[0]), b[1]))
habit(
    "text beside numbers",
    {"x": X, "text": ["a"] * 32, "y": CLASSES},
    MANY,
    lambda m, b: F.cross_entropy(m.net(b["x"]), b["y"]),
)
