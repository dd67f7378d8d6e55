{
    'name': 'Async Jobs: workloads of the benchmark',
    'version': '19.0.1.0.0',
    'category': 'Hidden',
    'author': 'The ir_async authors',
    'license': 'LGPL-3',
    'depends': ['base'],
    'data': [
        'security/ir.model.access.csv',
        'views/bench_job_views.xml',
    ],
    'installable': True,
}
