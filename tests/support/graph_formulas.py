"""The published formulas of graph layers in torch, by dense matrices and loops over single edges: slow and plain.

Each takes torch, the parameters by path and the graph, a namespace of tensors `x` `[N, d]`, `e`, `w` and `u`, of lists
`ends` of (sender, receiver) and `members`, the nodes of each graph, and gives the new nodes.
"""

from types import SimpleNamespace


def tensors(torch, graph):
    """A `Graph` as torch sees it, with gradients to the features of its nodes."""
    ends = list(zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True))
    members, start = [], 0
    for n in graph.n_node.tolist():
        members.append(list(range(start, start + n)))
        start += n

    def tensor(a):
        return None if a is None else torch.tensor(a)

    x = torch.tensor(graph.nodes, requires_grad=True)
    return SimpleNamespace(
        x=x, e=tensor(graph.edges), w=tensor(graph.weights), u=tensor(graph.context), ends=ends, members=members
    )


def adjacency(torch, g, weighted):
    """A_ij: the summed weights of the edges from j to i."""
    n = len(g.x)
    a = torch.zeros(n, n, dtype=g.x.dtype)
    for k, (j, i) in enumerate(g.ends):
        a[i, j] += g.w[k] if weighted else 1
    return a


def normalized(torch, g, self_loops):
    a = adjacency(torch, g, g.w is not None)
    if self_loops:
        a = a + torch.eye(len(a), dtype=a.dtype)
    row = a.sum(1)
    d = torch.diag(torch.where(row > 0, row.clamp_min(1e-30) ** -0.5, torch.zeros_like(row)))
    return d @ a @ d


def gcn(self_loops=True, hops=1):
    def formula(torch, p, g):
        y = torch.linalg.matrix_power(normalized(torch, g, self_loops), hops) @ g.x @ p["w"]
        return y + p["b"] if "b" in p else y

    return formula


def appnp(hops, alpha, self_loops=True):
    """The sum of the series, not the recursion."""

    def formula(torch, p, g):
        a = normalized(torch, g, self_loops)
        powers = [torch.linalg.matrix_power((1 - alpha) * a, k) for k in range(hops + 1)]
        return (alpha * sum(powers[:-1]) + powers[-1]) @ g.x

    return formula


def edge_conv(how):
    def formula(torch, p, g):
        rows = [torch.cat([g.x[i], g.x[j] - g.x[i]]) @ p["inner/w"] + p["inner/b"] for j, i in g.ends]
        return received(torch, g, rows, how, rows[0])

    return formula


def reduce_rows(torch, rows, how, like):
    if not rows:
        return torch.zeros_like(like)
    stacked = torch.stack(rows)
    return {"sum": stacked.sum, "mean": stacked.mean, "max": stacked.amax, "min": stacked.amin}[how](0)


def received(torch, g, messages, how, like):
    """For each node, what its edges bring."""
    into = [[m for m, (_, i) in zip(messages, g.ends, strict=True) if i == node] for node in range(len(g.x))]
    return torch.stack([reduce_rows(torch, rows, how, like) for rows in into])


def sage(how, root=True):
    def formula(torch, p, g):
        y = received(torch, g, [g.x[j] for j, _ in g.ends], how, g.x[0]) @ p["w"] + p["b"]
        return y + g.x @ p["w_root"] if root else y

    return formula


def gin(torch, p, g):
    total = (1 + p["eps"]) * g.x + received(torch, g, [g.x[j] for j, _ in g.ends], "sum", g.x[0])
    return total @ p["inner/w"] + p["inner/b"]


def gine(torch, p, g):
    edges = g.e @ p["edge/w"] + p["edge/b"]
    messages = [torch.relu(g.x[j] + edges[k]) for k, (j, _) in enumerate(g.ends)]
    total = (1 + p["eps"]) * g.x + received(torch, g, messages, "sum", g.x[0])
    return total @ p["inner/w"] + p["inner/b"]


def attention(heads, concat, v2, self_loops=True):
    def formula(torch, p, g):
        n = len(g.x)
        leaky = torch.nn.functional.leaky_relu
        if v2:
            s = (g.x @ p["sender/w"] + p["sender/b"]).reshape(n, heads, -1)
            r = (g.x @ p["receiver/w"] + p["receiver/b"]).reshape(n, heads, -1)
            logits = (leaky(s[None] + r[:, None], 0.2) * p["a"]).sum(-1)  # [receiver, sender, head]
        else:
            s = (g.x @ p["w"]).reshape(n, heads, -1)
            logits = leaky((s * p["a_sender"]).sum(-1)[None] + (s * p["a_receiver"]).sum(-1)[:, None], 0.2)
        count = adjacency(torch, g, weighted=False)
        if self_loops:
            count = count.fill_diagonal_(1)
        share = count[..., None] * torch.exp(logits - logits.max())
        total = share.sum(1, keepdim=True)
        share = share / torch.where(total == 0, torch.ones_like(total), total)
        y = torch.einsum("ijh,jhd->ihd", share, s)
        y = y.reshape(n, -1) if concat else y.mean(1)
        return y + p["b"]

    return formula


def message_passing(how):
    def formula(torch, p, g):
        rows = [torch.cat([g.x[j], g.x[i], g.e[k]]) for k, (j, i) in enumerate(g.ends)]
        messages = [row @ p["message/w"] + p["message/b"] for row in rows]
        both = torch.cat([g.x, received(torch, g, messages, how, messages[0])], 1)
        return both @ p["update/w"] + p["update/b"]

    return formula


def owner(g, node):
    return next(k for k, nodes in enumerate(g.members) if node in nodes)


def graph_network(how):
    """Nodes, edges and context, joined in one row, as all three are new."""

    def formula(torch, p, g):
        def run(name, parts):
            return torch.cat(parts) @ p[f"{name}/w"] + p[f"{name}/b"]

        edges = [run("edge", [g.e[k], g.x[i], g.x[j], g.u[owner(g, i)]]) for k, (j, i) in enumerate(g.ends)]
        into = received(torch, g, edges, how, edges[0])
        nodes = [run("node", [into[i], g.x[i], g.u[owner(g, i)]]) for i in range(len(g.x))]
        contexts = []
        for k, own in enumerate(g.members):
            of_edges = [m for m, (_, i) in zip(edges, g.ends, strict=True) if i in own]
            pooled = [
                reduce_rows(torch, of_edges, how, edges[0]),
                reduce_rows(torch, [nodes[i] for i in own], how, nodes[0]),
            ]
            contexts.append(run("context", [*pooled, g.u[k]]))
        return torch.cat([torch.cat(rows) for rows in (nodes, edges, contexts)])

    return formula


def pool(how):
    def formula(torch, p, g):
        return torch.stack([reduce_rows(torch, [g.x[i] for i in own], how, g.x[0]) for own in g.members])

    return formula


def norm(torch, p, g):
    parts = []
    for own in g.members:
        c = g.x[own] - p["mean_scale"] * g.x[own].mean(0)
        parts.append(c / torch.sqrt((c**2).mean(0) + 1e-5) * p["scale"] + p["shift"])
    return torch.cat(parts)
