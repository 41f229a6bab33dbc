"""Figures as Prometheus reads them, and back. Importing this needs prometheus_client (extra `daemon`).

Thread: any.
Not here: what is measured (figures.py), who serves it (watch_port.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from smtpd_core.app.figures import METRICS, Figure, Metric


def as_text(figures: Iterable[Figure], accept: str = "") -> tuple[bytes, str]:
    """The text and its type, in the form that the reader's Accept header asks for: Prometheus' own or OpenMetrics."""
    encode, kind = choose_encoder(accept)
    return encode(_Gathered(figures)), kind


def from_text(text: str) -> list[Figure]:
    """The figures in a text of Prometheus' own form, those of METRICS. ValueError where it is none."""
    found = []
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            metric = _METRICS.get(sample.name) or _METRICS.get(family.name)
            if metric is not None:
                part = sample.name.removeprefix(metric.name)
                labels = tuple(sample.labels.get(name, "") for name in _labels(metric, part))
                found.append(Figure(metric.name, labels, sample.value, part))
    return found


_METRICS = {metric.name: metric for metric in METRICS}


def _labels(metric: Metric, part: str) -> tuple[str, ...]:
    return (*metric.labels, "le") if part == "_bucket" else metric.labels


class _Gathered(Collector):
    """Figures gathered by metric, in the order of METRICS."""

    def __init__(self, figures: Iterable[Figure]) -> None:
        self._by_metric: dict[str, list[Figure]] = {}
        for figure in figures:
            self._by_metric.setdefault(figure.metric, []).append(figure)

    def collect(self) -> Iterator[Family]:
        for metric in METRICS:
            if metric.name not in self._by_metric:
                continue
            family = Family(metric.name.removesuffix("_total"), metric.meaning, metric.kind)
            for figure in self._by_metric[metric.name]:
                labels = dict(zip(_labels(metric, figure.part), figure.labels, strict=True))
                family.add_sample(metric.name + figure.part, labels, figure.value)
            yield family
