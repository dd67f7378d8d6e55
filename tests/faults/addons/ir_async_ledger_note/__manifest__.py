{
    'name': 'Async Jobs Ledger: a module that comes and goes',
    'category': 'Hidden/Tests',
    'author': 'The ir_async authors',
    'license': 'LGPL-3',
    'depends': ['ir_async_ledger'],
}
