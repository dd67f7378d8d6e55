"""The export of a list view in batches of records. Odoo's own export holds all data in memory, several times."""

from __future__ import annotations

import io
import re
import tempfile
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NoReturn

import xlsxwriter

from odoo.exceptions import UserError
from odoo.tools import osutil

from odoo.addons.ir_async.tools.request import as_request
from odoo.addons.web.controllers.export import (
    CSVExport,
    ExcelExport,
    GroupExportXlsxWriter,
    GroupsTreeNode,
)

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

    from odoo.api import Environment
    from odoo.models import BaseModel

BATCH_SIZE = 1000  # records
FORMATS = {'csv': CSVExport, 'xlsx': ExcelExport}


LINK = re.compile(r'(?:(?:ftp|http)s?://|mailto:)')
LINKS_MAX = 65_530  # links on a sheet
LINK_MAX_LENGTH = 2079  # UTF-16 units


class XlsxWriter(GroupExportXlsxWriter):
    """Odoo's writer with little memory and without loss of text.

    Each row goes to a temporary file once the next one begins. By itself, xlsxwriter loses text: it leaves a cell empty
    when it cannot make a link of its text, turns a text that begins with ``=`` into a formula, cuts long texts off, and
    drops rows and columns for which a sheet has no room.
    """

    def __init__(
        self,
        env: Environment,
        fields: list[dict[str, Any]],
        columns_headers: list[str],
        row_count: int,
        folder: str,
    ) -> None:
        self.env = env
        self.folder = folder
        self.link_count = 0
        super().__init__(fields, columns_headers, row_count)
        if len(columns_headers) > self.worksheet.xls_colmax:
            raise UserError(
                self.env._(
                    "There are too many columns (%(count)s columns, limit: %(limit)s) for an XLSX file. Export fewer fields.",
                    count=len(columns_headers),
                    limit=self.worksheet.xls_colmax,
                )
            )

    @property
    def workbook(self) -> xlsxwriter.Workbook:
        return self._workbook

    @workbook.setter
    def workbook(self, _in_memory: xlsxwriter.Workbook) -> None:
        self._workbook = xlsxwriter.Workbook(
            self.output,
            {'constant_memory': True, 'tmpdir': self.folder, 'strings_to_formulas': False, 'strings_to_urls': False},
        )

    def write(self, row: int, column: int, cell_value: Any, style: Any = None) -> None:
        if isinstance(cell_value, str):
            limit = self.worksheet.xls_strmax
            if _length(cell_value) > limit:
                cell_value = self.env._(
                    "The content of this cell is too long for an XLSX file (more than %s characters). "
                    "Please use the CSV format for this export.",
                    limit,
                )
            elif self._write_link(row, column, cell_value, style):
                return
        if self.worksheet.write(row, column, cell_value, style):
            self.raise_too_many_rows()

    def _write_link(self, row: int, column: int, text: str, style: Any) -> bool:
        """Write a text as a link if it is one, as Odoo does.

        :return: whether the sheet has taken it as a link
        :rtype: bool
        """
        if not LINK.match(text) or self.link_count >= LINKS_MAX or _length(text) > LINK_MAX_LENGTH:
            return False
        self.link_count += 1
        return not self.worksheet.write_url(row, column, text, style, string=text)

    def raise_too_many_rows(self) -> NoReturn:
        """Raise the error for a sheet without room for all rows.

        :raises odoo.exceptions.UserError: always
        """
        raise UserError(
            self.env._(
                "There are too many rows for an XLSX file (limit: %(limit)s, with the headers). Consider splitting the export, "
                "or use the CSV format.",
                limit=self.worksheet.xls_rowmax,
            )
        )

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:  # after an error the file is not written: the job may have been cancelled
            self.close()


def _length(text: str) -> int:
    """Return the length of a text in UTF-16 units, as Excel counts it."""
    return len(text) if text.isascii() else len(text.encode('utf-16-le', 'surrogatepass')) // 2


class Export:
    """An export in a job: the work of Odoo's :meth:`ExportFormat.base`.

    :param model: the model, in the environment of the user
    :param str format_: ``csv`` or ``xlsx``
    :param dict params: the parameters that Odoo's web client sends to ``/web/export/<format>``
    """

    def __init__(self, model: BaseModel, format_: str, params: dict[str, Any]) -> None:
        self.format = FORMATS[format_]()
        self.import_compat = params['import_compat']
        self.model = model.with_context(import_compat=self.import_compat, **params.get('context', {}))
        self.ids = params['ids']
        self.domain = params['domain']
        self.groupby: list[str] = [] if self.import_compat else params.get('groupby') or []
        self.fields = params['fields']
        if not self.model._is_an_ordinary_table():
            self.fields = [field for field in self.fields if field['name'] != 'id']
        self.names = [field['name'] for field in self.fields]
        self.headers = self.names if self.import_compat else [field['label'].strip() for field in self.fields]
        self.records = self.model.browse(self.ids) if self.ids else self.model.search(self.domain)

    @property
    def filename(self) -> str:
        with as_request(self.model.env):
            return osutil.clean_filename(self.format.filename(self.model._name) + self.format.extension)

    def content(self) -> bytes:
        """Return the file.

        :rtype: bytes
        """
        if self.format.extension == '.xlsx':
            return self._grouped_xlsx() if self.groupby else self._xlsx()
        if self.groupby:
            with as_request(self.model.env):
                return self.format.from_group_data(self.fields, self.headers, None)  # raises: this format has no groups
        return self._csv()

    def _batches(self, names: list[str]) -> Generator[list[list[Any]]]:
        """Yield the rows of the records, batch by batch."""
        total = len(self.records)
        report_progress = self.model.env['ir.async'].report_progress
        for start in range(0, max(total, 1), BATCH_SIZE):  # also without records, since `export_data` checks access
            report_progress(start, total)
            yield self.records[start : start + BATCH_SIZE].export_data(names).get('datas', [])
            self.model.env.invalidate_all()
        report_progress(total, total, self.model.env._("Writing the file…"))

    def _csv(self) -> bytes:
        content = io.BytesIO()
        header = self.format.from_data(self.fields, self.headers, [])
        content.write(header.encode())
        for rows in self._batches(self.names):
            content.write(self.format.from_data(self.fields, self.headers, rows).removeprefix(header).encode())
        return content.getvalue()

    def _xlsx(self) -> bytes:
        with tempfile.TemporaryDirectory(prefix='ir_async.') as folder:
            with self._writer(len(self.records), folder) as writer:
                row_index = 0
                for rows in self._batches(self.names):
                    with as_request(self.model.env):
                        for row_index, row in enumerate(rows, row_index + 1):
                            if row_index < writer.worksheet.xls_rowmax:
                                writer._write_row(row_index, 0, row)
            if row_index > len(self.records):
                self._writer(row_index, folder)  # raises if there are too many rows
            if row_index >= writer.worksheet.xls_rowmax:
                writer.raise_too_many_rows()  # the header is one more row
            return writer.value

    def _grouped_xlsx(self) -> bytes:
        tree = self._tree()
        with tempfile.TemporaryDirectory(prefix='ir_async.') as folder:
            with self._writer(tree.count, folder) as writer, as_request(self.model.env):
                row, column = 1, 0
                for name, group in tree.children.items():
                    row, column = writer.write_group(row, column, name, group)
            return writer.value

    def _writer(self, row_count: int, folder: str) -> XlsxWriter:
        with as_request(self.model.env):
            return XlsxWriter(self.model.env, self.fields, self.headers, row_count, folder)

    def _tree(self) -> GroupsTreeNode:
        """Return the tree of the groups, with rows in the order of the records."""
        rows_of: defaultdict[int, list[list[Any]]] = defaultdict(list)  # by record
        current = 0
        for rows in self._batches(['.id', *self.names]):
            for record_id, *row in rows:
                current = int(record_id) if record_id else current  # only the first row of a record has its id
                rows_of[current].append(row)
        model, domain = self.model, self.domain
        if self.ids:
            model, domain = model.with_context(active_test=False), [('id', 'in', self.ids)]
        groups = model.formatted_read_group(domain, self.groupby, ['__count', 'id:array_agg'])
        groups_of: defaultdict[int, list[int]] = defaultdict(list)  # by record
        for index, group in enumerate(groups):
            for record_id in group['id:array_agg']:
                groups_of[record_id].append(index)
        data: list[list[list[Any]]] = [[] for _group in groups]
        for record_id, rows in rows_of.items():
            for index in groups_of[record_id]:
                data[index].extend(rows)
        types = [self.model._fields[spec.split(':', 1)[0].split('.', 1)[0]].type for spec in self.groupby]
        tree = GroupsTreeNode(self.model, self.names, self.groupby, types)
        for group, rows in zip(groups, data):
            tree.insert_leaf(group, rows)
        return tree
