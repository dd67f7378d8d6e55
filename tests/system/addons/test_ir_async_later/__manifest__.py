{
    'name': 'Async Jobs Tests: a module that is installed while workers run',
    'category': 'Hidden/Tests',
    'author': 'The ir_async authors',
    'license': 'LGPL-3',
    'depends': ['test_ir_async'],
}
