"""XML files of banks: parse them without entities, and read elements by their local names."""

from collections.abc import Iterator
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers.expat import ExpatError, ParserCreate

from tillway.connectors.file_port import FileRejected


def children_of(element: Element, name: str) -> Iterator[Element]:
    return (child for child in element if child.tag.rpartition(" ")[2] == name)


def child_of(element: Element, name: str) -> Element | None:
    return next(children_of(element, name), None)


def text_of(element: Element, name: str) -> str:
    child = child_of(element, name)
    return "" if child is None else (child.text or "").strip()


def parse_xml(content: bytes) -> Element:
    """Parse a document without a DOCTYPE, so that it can declare no entity and name no other file. Raises
    `FileRejected`. The tag of an element is its namespace, a space, and its name."""
    parser, builder = ParserCreate(namespace_separator=" "), TreeBuilder()

    def refuse(*_: object) -> None:
        raise FileRejected("the document has a DOCTYPE")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(content, True)
    except (ExpatError, ValueError, LookupError):
        raise FileRejected("the file is not XML") from None
    return builder.close()
