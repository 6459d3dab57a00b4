"""Class docstrings that tell of class variables too: what ``help`` shows of a contract."""

import ast
import inspect
import textwrap
from itertools import pairwise


def described(kind: type) -> str:
    """The docstring of a class, then its class variables, each with the text below it in the source."""
    told = [f"{name} = {value}\n{textwrap.indent(text, '    ')}" for name, value, text in variables(kind)]
    return "\n\n".join([inspect.cleandoc(kind.__doc__ or ""), *(["Class variables:"] if told else []), *told])


def variables(kind: type) -> list[tuple[str, str, str]]:
    """Annotated class variables that have a text below them: name, default as written ("required" where there
    is none), text; none where there is no source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError):
        return []
    (node,) = tree.body
    assert isinstance(node, ast.ClassDef)
    return [
        (
            declared.target.id,
            ast.unparse(declared.value) if declared.value else "required",
            inspect.cleandoc(text.value.value),
        )
        for declared, text in pairwise(node.body)
        if isinstance(declared, ast.AnnAssign)
        and isinstance(declared.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    ]
