"""What the paper prints, and others of it, every number with its source; nothing here is ours."""

from senet.paper.tables import Column as Column
from senet.paper.tables import PaperTable as PaperTable
from senet.paper.tables import Published as Published
from senet.paper.tables import Row as Row
from senet.paper.tables import published as published
from senet.paper.tables import table as table
from senet.paper.tables import tables as tables
