"""What the codec promises on the reference model, and which promises a set of measured rows breaks."""
import rate_curve

# At the KL of CacheGen's released default level, bits per value of ours against those of either form of CacheGen.
PAYLOAD_SHARE_MAX = {"model": 0.20, "layer": 0.40}
STORED_SHARE_MAX = {"model": 0.125}  # of the released form's payload and tables
# The finest level: nothing that this model could show. Its KL stays within a factor of that of 8-bit vector-wise quantisation (which is a few
# 0.00001), the mean loss on the 960 tokens of prose moves by no more than three times the
# standard error that such a KL brings with it, sqrt(2 x 0.0001 / 960), and no more than two of the 160 answers change sides.
FINEST_KL_FACTOR_MAX = 5
FINEST_LOSS_CHANGE_MAX = 0.0015
FINEST_ACCURACY_CHANGE_MAX = 2.5 / 160
# The coarsest level: no cliff. With 160 questions answered at a rate near 0.93 the standard deviation of the rate is 0.02; a loss within
# two and a half of them is not told from chance.
COARSEST_ACCURACY_LOSS_MAX = 0.05


def _only(rows, **wanted):
    return [row for row in rows if all(row.get(k) == v for k, v in wanted.items())]


def _groups(rows):
    """(group, what it promises): a group without sensitivities keeps the promises of its kind."""
    for group in rate_curve.groups_of(rows):
        if group.split(":")[0] in PAYLOAD_SHARE_MAX:
            yield group, group.split(":")[0]


def _rates(rows):
    default, = _only(rows, label="released, default")
    for kl in rate_curve.KLS:
        paper, _ = rate_curve.bits_at(rate_curve.curve_of(rows, kl, "paper", bits="payload"), default[kl])
        for group, kind in _groups(rows):
            ours, _ = rate_curve.bits_at(rate_curve.curve_of(rows, kl, "kvstream", group), default[kl])
            limits = [("the released form's payload", default["payload"], PAYLOAD_SHARE_MAX[kind]),
                      ("the paper's form", paper, PAYLOAD_SHARE_MAX[kind])]
            if kind in STORED_SHARE_MAX:
                limits.append(("the released form's payload and tables", default["payload"] + default["tables"], STORED_SHARE_MAX[kind]))
            for what, theirs, limit in limits:
                share = float("inf") if ours is None else 0.0 if theirs is None else ours / theirs
                yield f"{group} groups at {kl} {default[kl]:.5f}: {share:.3f} of {what}, at most {limit} promised", share <= limit


def _ends(rows):
    eight, = _only(rows, label="vector-wise, 8 bits")
    for group, _ in _groups(rows):
        levels = sorted(_only(rows, codec="kvstream", group=group), key=lambda row: row["level"])
        coarsest, finest = levels[0], levels[-1]
        for kl in rate_curve.KLS:
            yield (f"{group} groups, finest level: {kl} {finest[kl]:.6f} is {finest[kl] / eight[kl]:.1f} times that of 8 bits, "
                   f"at most {FINEST_KL_FACTOR_MAX} promised", finest[kl] <= FINEST_KL_FACTOR_MAX * eight[kl])
        yield (f"{group} groups, finest level: loss changes by {finest['nll_change']:+.5f} nats, at most {FINEST_LOSS_CHANGE_MAX} promised",
               abs(finest["nll_change"]) <= FINEST_LOSS_CHANGE_MAX)
        change = finest["accuracy"] - finest["accuracy_original"]
        yield (f"{group} groups, finest level: retrieval changes by {change:+.4f}, at most {FINEST_ACCURACY_CHANGE_MAX:.4f} promised",
               abs(change) <= FINEST_ACCURACY_CHANGE_MAX)
        loss = coarsest["accuracy_original"] - coarsest["accuracy"]
        yield (f"{group} groups, coarsest level: retrieval loses {loss:+.4f}, at most {COARSEST_ACCURACY_LOSS_MAX} promised",
               loss <= COARSEST_ACCURACY_LOSS_MAX)


def check(rows):
    """[(sentence, kept)]."""
    return [*_rates(rows), *_ends(rows)]
