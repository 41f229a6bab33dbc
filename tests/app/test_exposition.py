"""Figures as text for Prometheus, and back."""

from __future__ import annotations

import pytest

from smtpd_core.app.figures import METRICS, Figure, Metric

exposition = pytest.importorskip("smtpd_core.app.exposition")

PARTS = {"counter": ("",), "gauge": ("",), "summary": ("_count", "_sum"), "histogram": ("_bucket", "_count", "_sum")}


def figures_of(metric: Metric) -> list[Figure]:
    """One of each part, with labels that are as bad as can be."""
    labels = tuple(f'{name} "quoted" \\ and\nmore' for name in metric.labels)
    return [
        Figure(metric.name, (*labels, "+Inf") if part == "_bucket" else labels, 2.0, part)
        for part in PARTS[metric.kind]
    ]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_comes_back_as_it_went(metric: Metric) -> None:
    text, kind = exposition.as_text(figures_of(metric))
    assert exposition.from_text(text.decode()) == figures_of(metric)
    assert kind.startswith("text/plain; version=0.0.4")
    assert f"# HELP {metric.name} {metric.meaning}" in text.decode()


def test_all_metrics_together_are_open_metrics_where_that_is_asked_for() -> None:
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    figures = [figure for metric in METRICS for figure in figures_of(metric)]
    text, kind = exposition.as_text(figures, "application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert len(list(parser.text_string_to_metric_families(text.decode()))) == len(METRICS)


def test_other_programs_metrics_are_left_out() -> None:
    assert exposition.from_text("python_info 1\nsmtpd_messages_total 3\n") == [Figure("smtpd_messages_total", (), 3.0)]


@pytest.mark.parametrize("text", ["<html>\n", "220 mx.test ready\r\n", "{}\n", "a{b} c\n", "a b\n", "\0\n"])
def test_what_is_no_metrics_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        exposition.from_text(text)
