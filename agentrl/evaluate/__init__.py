"""Evaluation: suites of scenarios, how often a policy succeeds at them, and how sure that is."""

from agentrl.evaluate.evaluate import Progress, evaluate, evaluate_tasks
from agentrl.evaluate.report import print_report
from agentrl.evaluate.result import EvaluationResult, ScenarioResult, SuiteResult
from agentrl.evaluate.statistics import Interval, mean_interval, pass_at_k, success_interval, wilson
from agentrl.evaluate.suite import Scenario, Suite, load_suite, suite_files

__all__ = [
    "EvaluationResult",
    "Interval",
    "Progress",
    "Scenario",
    "ScenarioResult",
    "Suite",
    "SuiteResult",
    "evaluate",
    "evaluate_tasks",
    "load_suite",
    "mean_interval",
    "pass_at_k",
    "print_report",
    "success_interval",
    "suite_files",
    "wilson",
]
