"""Limits of searches, groups and orders of jobs."""

from odoo import models
from odoo.exceptions import AccessError, UserError
from odoo.fields import Domain


class IrAsync(models.Model):
    _inherit = 'ir.async'

    def _search(self, domain, *args, **kwargs):
        # Odoo resolves these operators in sudo. So they would show who enqueued a job, whatever the groups of `parent_id`.
        if not self._is_manager():
            domain = Domain(domain).optimize(self)
            if _is_hierarchical(domain):
                raise AccessError(
                    self.env._("Only managers of jobs can search for jobs by the jobs that enqueued them.")
                )
        return super()._search(domain, *args, **kwargs)

    # PostgreSQL cannot compare values of type json.

    def _order_field_to_sql(self, alias, field_name, *args):
        self._check_comparable(field_name)
        return super()._order_field_to_sql(alias, field_name, *args)

    def _read_group_groupby(self, alias, groupby_spec, query):
        self._check_comparable(groupby_spec)
        return super()._read_group_groupby(alias, groupby_spec, query)

    def _read_group_select(self, aggregate_spec, query):
        self._check_comparable(aggregate_spec)
        return super()._read_group_select(aggregate_spec, query)

    def _check_comparable(self, spec):
        if spec.partition(':')[0] == 'payload':
            raise UserError(self.env._("Jobs cannot be grouped or sorted by their results."))


def _is_hierarchical(domain):
    return any(
        condition.operator in ('child_of', 'parent_of')
        or (isinstance(condition.value, Domain) and _is_hierarchical(condition.value))
        for condition in domain.iter_conditions()
    )
