import tempfile
import time
from collections import Counter
from pathlib import Path

import xlsxwriter

from odoo import api, models
from odoo.tools import split_every


class ResPartner(models.Model):
    _inherit = 'res.partner'

    @api.model
    def enqueue_export(self):
        """Start the export of all partners. Also return when the job was committed."""
        committed = []
        # The job has a transaction of its own, to note when that commits: before any worker is notified.
        with self.env.registry.cursor() as cr:
            partners = self.with_env(self.env(cr=cr))
            cr.postcommit.add(lambda: committed.append(time.time()))
            job_id = partners.env['ir.async'].call_notify("Partners", partners._export_xlsx).id
        return {'asyncJobId': job_id, 'committed': committed[0]}

    @api.model
    def _export_xlsx(self):
        started = time.time()
        columns = ['id', 'name', 'ref', 'email', 'phone', 'city']
        partner_ids = self.search([], order='id').ids
        progress = self.env['ir.async']
        with tempfile.NamedTemporaryFile(suffix='.xlsx') as file:
            with xlsxwriter.Workbook(file.name, {'constant_memory': True}) as workbook:
                sheet = workbook.add_worksheet("Partners")
                sheet.write_row(0, 0, columns)
                row = 0
                for ids in split_every(1000, partner_ids):
                    partners = self.browse(ids)
                    for values in partners.read(columns, load=None):
                        row += 1
                        sheet.write_row(row, 0, [values[column] or '' for column in columns])
                    partners.invalidate_recordset()
                    progress.report_progress(row, len(partner_ids), f"{row} partners")
            attachment = self.env['ir.attachment'].create(
                {'name': 'partners.xlsx', 'raw': Path(file.name).read_bytes()}
            )
        return {
            'type': 'ir.actions.act_url',
            'url': f'/web/content/{attachment.id}?download=true',
            'records': row,
            'started': started,
        }

    @api.model
    def start_neighbours_search(self):
        """Start the search that the ⚙ menu of the contacts offers."""
        return {'asyncJobId': self.env['ir.async'].call_notify("Neighbours", self._search_neighbours).id}

    @api.model
    def _search_neighbours(self, seconds=8):
        """Return an action with the contacts of the largest city, after a while."""
        contacts_by_city = Counter()
        batches = list(split_every(500, self.search([], order='id').ids))
        total = sum(map(len, batches))
        for ids in batches:
            time.sleep(seconds / len(batches))
            contacts_by_city.update(filter(None, self.browse(ids).mapped('city')))
            done = sum(contacts_by_city.values())
            self.env['ir.async'].report_progress(done, total, f"{done:,} of {total:,} contacts compared")
        ((city, _count),) = contacts_by_city.most_common(1)
        return {
            'type': 'ir.actions.act_window',
            'name': f"Neighbours in {city}",
            'res_model': 'res.partner',
            'view_mode': 'list,form',
            'domain': [('city', '=', city)],
        }
