# pyright: reportMissingImports=false, reportUntypedBaseClass=false
"""A graph of one node that streams the scripted reply. It runs in LangGraph's own environment, beside a copy of
`script.py`."""

from typing import TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from script import reply  # type: ignore[import-not-found]


class State(TypedDict):
    text: str
    pace_s: float
    said: str


async def answer(state: State) -> dict[str, str]:
    write, said = get_stream_writer(), list[str]()
    async for token in reply(state["pace_s"]):
        write({"text": token})
        said.append(token)
    return {"said": "".join(said)}


graph = (
    StateGraph(State).add_node("answer", answer).add_edge(START, "answer").add_edge("answer", END).compile()
)
