"""Nodes that belong to another one: removed with all that they own, and a hidden text node that holds values."""

from __future__ import annotations

import json
from typing import Any


def remove(node: Any) -> None:
    """Remove a node, if there is one, with its display and storage nodes, which would stay behind."""
    if node is None:
        return
    scene, owned = node.GetScene(), [node]
    if node.IsA("vtkMRMLDisplayableNode"):
        owned += [node.GetNthDisplayNode(n) for n in range(node.GetNumberOfDisplayNodes())]
    if node.IsA("vtkMRMLStorableNode"):
        owned.append(node.GetStorageNode())
    for each in owned:
        if each is not None:
            scene.RemoveNode(each)


def hidden_values(owner: Any, role: str) -> list[Any]:
    """What `hide_values` has stored, in this scene or before it was saved and loaded; empty when there is nothing."""
    node = owner.GetNodeReference(role)
    return [] if node is None else json.loads(node.GetText())


def hide_values(owner: Any, role: str, values: list[Any]) -> None:
    """Store values in a text node of their own, which the user does not see; no values, no node.

    Args:
        owner: the node that refers to it.
        role: the name of the reference.
        values: what JSON can hold.
    """
    node = owner.GetNodeReference(role)
    if not values:
        remove(node)
        return
    if node is None:
        node = owner.GetScene().AddNewNodeByClass("vtkMRMLTextNode", f"{owner.GetName()} {role}")
        node.SetHideFromEditors(True)
        owner.SetNodeReferenceID(role, node.GetID())
    node.SetText(json.dumps(values))
