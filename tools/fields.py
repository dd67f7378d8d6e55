"""Types of fields that Odoo does not have: JSON as text, and references without foreign keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from odoo import fields, models
from odoo.exceptions import UserError
from odoo.tools import SQL

if TYPE_CHECKING:
    from odoo.api import Environment
    from odoo.tools import Query


class Payload(fields.Json):
    """JSON that keeps its text: jsonb refuses ``\\u0000`` and rewrites numbers."""

    _column_type = ('json', 'json')

    # PostgreSQL's json has neither order nor equality.

    def _description_sortable(self, env: Environment) -> bool:
        return False

    def _description_groupable(self, env: Environment) -> bool:
        return False

    def _condition_to_sql(
        self, field_expr: str, operator: str, value: Any, model: models.BaseModel, alias: str, query: Query
    ) -> SQL:
        if operator in ('in', 'not in'):
            is_supported = all(item is None or item is False for item in value)
        else:
            is_supported = operator.endswith('like')
        if not is_supported:
            raise UserError(
                model.env._("Search for texts within the results of jobs, or for jobs with a result or without one.")
            )
        return super()._condition_to_sql(field_expr, operator, value, model, alias, query)

    def convert_to_record(self, value: Any, record: models.BaseModel) -> Any:
        # Only managers see where a failed job was enqueued: it may have been in another user's job.
        payload = super().convert_to_record(value, record)
        return record._add_chain(payload) if payload and record.id and record._is_manager() else payload


class WeakMany2one(fields.Many2one):
    """A reference without a foreign key: when its target is deleted, PostgreSQL does not write the row."""

    def update_db_foreign_key(self, model: models.BaseModel, column: dict[str, Any]) -> None:
        pass

    def to_sql(self, model: models.BaseModel, alias: str) -> SQL:
        # Reading, searching and grouping alike see no target that is gone. Odoo does the same for references per company.
        target = SQL.identifier(model.env[self.comodel_name]._table)
        return SQL("(SELECT target.id FROM %s target WHERE target.id = %s)", target, super().to_sql(model, alias))
