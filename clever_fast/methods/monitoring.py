"""What tells a run that learns from one that collapses, without a wait for the device.

Everything is computed from what a step has made anyway, on few rows: the assignments of the first `ROWS` images and the
features of at most `FEATURES`, of one crop each. A report averages over its steps and ranks.
"""

import torch
from torch import Tensor

from clever_fast.methods.method import Metric

ROWS, FEATURES = 32, 256  # images


def assignment_metrics(head: str = "", label: str = "") -> tuple[Metric, ...]:
    """What `assignments` returns, as a method declares it."""
    panel = "teacher's assignments"
    return (
        Metric(f"teacher_entropy{head}", f"{label}entropy", "nats", panel, watched=not head),
        Metric(f"prototype_entropy{head}", f"{label}prototype entropy", "nats", panel),
        Metric(f"teacher_kl{head}", f"{label}KL", "nats", panel, watched=not head),
    )


# of a method that separates invariance from equivariance and regularises its heads with PReg
PAIR_METRICS = (
    Metric("invariance", "invariance", panel="losses", live=True),
    Metric("orthogonality", "orthogonality", panel="losses", live=True),
    Metric("preg", "PReg gap", panel="PReg: | norm(IR head)² - norm(EF head)² |", live=True),
    Metric("ir_norm_squared", "IR head", panel="norm² of all weights of a head"),
    Metric("ef_norm_squared", "EF head", panel="norm² of all weights of a head"),
)


def spread_metrics(name: str, label: str) -> tuple[Metric, ...]:
    """What `spread` returns, as a method declares it."""
    return (
        Metric(f"{name}_rank", f"{label} rank", panel="rank of the features", watched=True),
        Metric(f"{name}_std", f"{label} std", panel="standard deviation of the features"),
    )


@torch.no_grad()
def assignments(
    student: Tensor, teacher: Tensor, center: Tensor, *, student_temp: float, teacher_temp: float, head: str = ""
) -> dict[str, Tensor]:
    """How surely and how differently a head's teacher assigns images to prototypes; all in nats, between 0 and ln K.

    With P_n = softmax((t - center) / teacher_temp) of the teacher's first crop of image n and Q_n = softmax(s /
    student_temp) of the student's second crop: `teacher_entropy` is the mean of H(P_n), `teacher_kl` the mean of
    KL(P_n || Q_n), and `prototype_entropy` H(mean of P_n), which is never below the first. A teacher whose entropy is
    ln K gives every image every prototype; one whose prototype entropy is 0 gives every image the same one.

    Args:
        student: (V, N, K) logits, V > 1.
        teacher: (G, N, K) logits.
        center: (K,).
        head: ends the names, as it ends the name of the head's centre.

    Source: DINO (Caron et al. 2021), section 5.3.
    """
    log_p = ((teacher[0, :ROWS].detach().float() - center) / teacher_temp).log_softmax(-1)  # (N, K)
    log_q = (student[1, :ROWS].detach().float() / student_temp).log_softmax(-1)
    p = log_p.exp()
    return {
        f"teacher_entropy{head}": -(p * log_p).sum(-1).mean(),  # no product of matrices: autocast would round it
        f"teacher_kl{head}": (p * (log_p - log_q)).sum(-1).mean(),
        f"prototype_entropy{head}": -torch.special.xlogy(p.mean(0), p.mean(0)).sum(),
    }


@torch.no_grad()
def spread(features: Tensor, name: str) -> dict[str, Tensor]:
    """How far and in how many directions features (N, D) of different images lie apart.

    With C their (D, D) covariance: `std` is sqrt(tr C / D), `rank` the participation ratio (tr C)^2 / tr(C^2), between
    1 for features on a line and min(D, N - 1) for features as wide in every direction. tr(C^2) is the sum of squares of
    C or of the images' (N, N) Gram matrix, whichever is smaller; no eigenvalues. The rank of equal features is 0.
    """
    x = features[:FEATURES].detach().float()
    x = x - x.mean(0)
    N, D = x.shape
    with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):  # meta: where operations are counted
        gram = x @ x.T if N <= D else x.T @ x
    total = x.square().sum()
    rank = total.square() / gram.square().sum().clamp_min(torch.finfo(torch.float32).tiny)
    return {f"{name}_std": (total / (N * D)).sqrt(), f"{name}_rank": rank}
