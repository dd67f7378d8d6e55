{
    'name': 'Async Jobs Ledger',
    'category': 'Hidden/Tests',
    'author': 'The ir_async authors',
    'license': 'LGPL-3',
    'depends': ['ir_async'],
    'data': ['security/ir.model.access.csv'],
}
