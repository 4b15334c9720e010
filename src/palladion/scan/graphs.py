"""What an ONNX graph computes with: operators by their domains, and functions that the file defines itself."""

from collections.abc import Collection, Iterator

from palladion.model.graph import Graph
from palladion.scan.verdict import Finding


def graph_findings(graph: Graph, operator_domains: Collection[str]) -> Iterator[Finding]:
    """Every operator of a domain that is not listed, and every function in place of a standard operator."""
    own = {(function.domain, function.name) for function in graph.functions}
    for domain, operator in sorted(graph.operators - own):
        if domain not in operator_domains:
            message = f"operator {operator} comes from domain {domain!r}, which scan.operator_domains does not list"
            yield Finding("operator-domain", operator, message)
    for domain, name in sorted(own):
        if domain in operator_domains:
            message = f"the file defines {name} of domain {domain or 'ai.onnx'!r} itself, in place of the standard one"
            yield Finding("shadowed-operator", name, message)
